//! Who is told that a transfer has something to look at.

use aioiroh_core::stream::Waker;

use crate::report::Reports;
use crate::worker::{Event, Shared};

#[derive(Default)]
pub(crate) struct Bell {
    route: Route,
    // The engine was told and has not looked yet.
    rung: bool,
}

#[derive(Default)]
enum Route {
    /// Not attached yet: whoever attaches it.
    #[default]
    Later,
    Engine(Waker),
    /// The engine has let it go: the application, by way of the worker.
    Worker,
}

/// Whom to tell, outside of all locks: the waker may call into the engine.
pub(crate) enum Ring {
    Nobody,
    Engine(Waker),
    Worker,
}

impl Bell {
    pub(crate) fn attach(&mut self, waker: Waker) {
        self.route = Route::Engine(waker);
    }

    pub(crate) fn let_go(&mut self) {
        self.route = Route::Worker;
    }

    /// The engine looks now: what changes from here on rings again.
    pub(crate) fn looked(&mut self) {
        self.rung = false;
    }

    /// `ready`: the engine can go on. Reports are news for either.
    pub(crate) fn ring(&mut self, ready: bool, reports: &mut Reports) -> Ring {
        match &self.route {
            Route::Engine(waker) if !self.rung && (ready || reports.has_news()) => {
                self.rung = true;
                Ring::Engine(waker.clone())
            }
            Route::Worker if reports.take_news() => Ring::Worker,
            _ => Ring::Nobody,
        }
    }
}

impl Ring {
    pub(crate) fn go(self, worker: &Shared, id: u64) {
        match self {
            Self::Nobody => {}
            Self::Engine(waker) => waker(),
            Self::Worker => worker.tell(Event::Transfer(id)),
        }
    }
}
