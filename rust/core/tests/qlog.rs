//! With the feature `qlog` a connection leaves a file; without it a wish for one is an error.

use aioiroh_core::{
    config::{Settings, Transport},
    engine::Engine,
};

fn engine(folder: &std::path::Path) -> Result<Engine, aioiroh_core::engine::CallError> {
    Engine::new(
        Settings {
            secret: [1; 32],
            alpns: Vec::new(),
            transport: Transport { qlog_dir: Some(folder.to_owned()), ..Transport::default() },
            keylog: None,
            seed: None,
            max_incoming: 1,
            retry_above: None,
            max_tickets: 8,
        },
        Box::new(|| {}),
    )
}

#[test]
fn a_connection_leaves_a_file() {
    let folder = std::env::temp_dir().join(format!("aioiroh-qlog-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let made = engine(&folder);
    if cfg!(feature = "qlog") {
        let mut engine = made.unwrap();
        let peer = [2; 32];
        let to = ([127, 0, 0, 1], 9).into();
        engine.connect(std::time::Instant::now(), to, peer, vec![b"test".to_vec()], None, false).unwrap();
        drop(engine);
        let files: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
        assert_eq!(files.len(), 1);
    } else {
        assert!(made.is_err());
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
