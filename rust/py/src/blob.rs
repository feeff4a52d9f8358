//! Blobs, transfers and the disk worker as Python classes.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;

use aioiroh_bao::tree::outboard_len;
use aioiroh_bao::{ChunkRanges, DecodeError, Decoder, Event as Decoded, Hash, encode, outboard};
use aioiroh_core::stream::{StreamSink, StreamSource};
use aioiroh_io::{Detail, Event, Item, Job, JobEvent, OutboardAt, Receiver, Report, Sender, describe};
use bytes::Bytes;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use pyo3::{create_exception, intern};

use crate::identity::contents;

create_exception!(
    aioiroh._native,
    BaoError,
    PyValueError,
    "Data that do not verify; `kind` says what is wrong."
);

/// Work on more bytes than this is worth giving the interpreter lock away and taking it back.
const LONG: usize = 2 * 1024 * 1024;

type Tuple = Py<PyTuple>;

fn hash32(hash: &[u8]) -> PyResult<[u8; 32]> {
    hash.try_into().map_err(|_| PyValueError::new_err(format!("a hash must be 32 bytes, not {}", hash.len())))
}

fn ranges(boundaries: Vec<u64>) -> PyResult<ChunkRanges> {
    ChunkRanges::from_boundaries(boundaries)
        .ok_or_else(|| PyValueError::new_err("the boundaries of a set of chunks must increase strictly"))
}

/// The arguments of OSError: errno, text, file name.
fn os_args(error: &std::io::Error) -> (i32, String, Option<OsString>) {
    let (errno, text, path) = describe(error);
    (errno, text, path.map(Into::into))
}

fn os_error(error: &std::io::Error) -> PyErr {
    PyOSError::new_err(os_args(error))
}

/// An outboard: its bytes, or the path of a file.
fn outboard_at(outboard: &Bound<'_, PyAny>) -> PyResult<OutboardAt> {
    Ok(match outboard.cast::<PyBytes>() {
        Ok(bytes) => OutboardAt::Memory(Bytes::copy_from_slice(bytes.as_bytes())),
        Err(_) => OutboardAt::File(outboard.extract()?),
    })
}

fn bao_error(py: Python<'_>, kind: &str, text: String) -> PyErr {
    let error = BaoError::new_err(text);
    if let Err(failed) = error.value(py).setattr(intern!(py, "kind"), kind) {
        return failed;
    }
    error
}

/// BLAKE3 of bytes.
#[pyfunction(name = "blake3")]
fn hash_of<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = data.py();
    let bytes = contents(data)?;
    let hash = if bytes.len() > LONG { py.detach(|| blake3::hash(&bytes)) } else { blake3::hash(&bytes) };
    Ok(PyBytes::new(py, hash.as_bytes()))
}

/// BLAKE3 of bytes that come in pieces.
#[pyclass(frozen, module = "aioiroh._native")]
struct Blake3(parking_lot::Mutex<blake3::Hasher>);

#[pymethods]
impl Blake3 {
    #[new]
    fn new() -> Self {
        Self(parking_lot::Mutex::new(blake3::Hasher::new()))
    }

    fn update(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let bytes = contents(data)?;
        if bytes.len() > LONG {
            data.py().detach(|| {
                self.0.lock().update(&bytes);
            });
        } else {
            self.lock(data.py()).update(&bytes);
        }
        Ok(())
    }

    fn digest<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let hash = self.lock(py).finalize();
        PyBytes::new(py, hash.as_bytes())
    }
}

impl Blake3 {
    /// Without the interpreter lock if another thread hashes something long.
    fn lock(&self, py: Python<'_>) -> parking_lot::MutexGuard<'_, blake3::Hasher> {
        loop {
            if let Some(guard) = self.0.try_lock() {
                return guard;
            }
            py.detach(|| drop(self.0.lock()));
        }
    }
}

/// Hash and outboard of each of many blobs in memory.
#[pyfunction]
fn hash_many<'py>(
    py: Python<'py>,
    buffers: Vec<Bound<'py, PyAny>>,
) -> PyResult<Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>> {
    let all = buffers.iter().map(contents).collect::<PyResult<Vec<_>>>()?;
    let hash = || all.iter().map(|bytes| outboard::of_bytes(bytes)).collect::<Vec<_>>();
    let long = all.iter().map(|bytes| bytes.len()).sum::<usize>() > LONG;
    let hashed = if long { py.detach(hash) } else { hash() };
    let pair = |(hash, outboard): (Hash, Vec<u8>)| (PyBytes::new(py, &hash), PyBytes::new(py, &outboard));
    Ok(hashed.into_iter().map(pair).collect())
}

/// The response for a query on a blob in memory.
#[pyfunction]
fn encode_blob<'py>(data: &Bound<'py, PyAny>, boundaries: Vec<u64>) -> PyResult<Bound<'py, PyBytes>> {
    let query = ranges(boundaries)?;
    let bytes = contents(data)?;
    let (hash, outboard) = outboard::of_bytes(&bytes);
    let encoded = encode::to_vec(hash, &bytes, &outboard, &query)
        .map_err(|_| PyRuntimeError::new_err("the blob changed while it was encoded"))?;
    Ok(PyBytes::new(data.py(), &encoded))
}

/// The verified leaves of a whole response, as (byte offset, bytes).
#[pyfunction]
fn decode_blob<'py>(
    hash: &[u8],
    boundaries: Vec<u64>,
    encoded: &Bound<'py, PyAny>,
) -> PyResult<Vec<(u64, Bound<'py, PyBytes>)>> {
    let py = encoded.py();
    let bytes = contents(encoded)?;
    let mut decoder = Decoder::new(hash32(hash)?, ranges(boundaries)?, u64::MAX);
    let mut leaves = Vec::new();
    let failed = |error: DecodeError| bao_error(py, error.kind(), error.to_string());
    let mut rest: &[u8] = &bytes;
    while !rest.is_empty() && !decoder.is_done() {
        let (taken, event) = decoder.feed(rest).map_err(failed)?;
        if let Some(Decoded::Leaf { offset, data }) = event {
            leaves.push((offset, PyBytes::new(py, data)));
        }
        rest = &rest[taken..];
    }
    decoder.finish().map_err(failed)?;
    if !rest.is_empty() {
        return Err(bao_error(py, "trailing", format!("{} bytes follow the response", rest.len())));
    }
    Ok(leaves)
}

/// Data, outboard and present chunks of one blob.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct Blob(Arc<aioiroh_io::Blob>);

#[pymethods]
impl Blob {
    #[staticmethod]
    fn from_bytes(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = data.py();
        let bytes = Bytes::from(contents(data)?.into_owned());
        let blob = if bytes.len() > LONG {
            py.detach(|| aioiroh_io::Blob::from_bytes(bytes))
        } else {
            aioiroh_io::Blob::from_bytes(bytes)
        };
        Ok(Self(Arc::new(blob)))
    }

    #[staticmethod]
    fn memory(hash: &[u8], max_size: u64) -> PyResult<Self> {
        Ok(Self(Arc::new(aioiroh_io::Blob::memory(hash32(hash)?, max_size))))
    }

    #[staticmethod]
    fn discard(hash: &[u8], max_size: u64) -> PyResult<Self> {
        Ok(Self(Arc::new(aioiroh_io::Blob::discard(hash32(hash)?, max_size))))
    }

    #[staticmethod]
    #[pyo3(signature = (hash, data_path, outboard_path, *, max_size))]
    fn create(
        hash: &[u8],
        data_path: PathBuf,
        outboard_path: Option<PathBuf>,
        max_size: u64,
    ) -> PyResult<Self> {
        let blob = aioiroh_io::Blob::create(hash32(hash)?, data_path, outboard_path, max_size);
        Ok(Self(Arc::new(blob)))
    }

    #[staticmethod]
    #[pyo3(signature = (hash, data_path, size, outboard, present=None))]
    fn open(
        hash: &[u8],
        data_path: PathBuf,
        size: u64,
        outboard: &Bound<'_, PyAny>,
        present: Option<Vec<u64>>,
    ) -> PyResult<Self> {
        let outboard = outboard_at(outboard)?;
        let present = present.map(ranges).transpose()?;
        Ok(Self(Arc::new(aioiroh_io::Blob::open(hash32(hash)?, data_path, size, outboard, present))))
    }

    #[staticmethod]
    #[pyo3(signature = (hash, data, outboard=None))]
    fn inline(hash: &[u8], data: &Bound<'_, PyAny>, outboard: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let data = Bytes::from(contents(data)?.into_owned());
        let outboard = match outboard {
            Some(outboard) => Bytes::from(contents(outboard)?.into_owned()),
            None => Bytes::new(),
        };
        let size = data.len();
        let blob = aioiroh_io::Blob::inline(hash32(hash)?, data, outboard).ok_or_else(|| {
            PyValueError::new_err(format!(
                "the outboard of {size} bytes must have {} bytes",
                outboard_len(size as u64)
            ))
        })?;
        Ok(Self(Arc::new(blob)))
    }

    #[staticmethod]
    #[pyo3(signature = (hash, data_path, outboard_path, *, size, present, max_size))]
    fn resume(
        hash: &[u8],
        data_path: PathBuf,
        outboard_path: PathBuf,
        size: Option<u64>,
        present: Vec<u64>,
        max_size: u64,
    ) -> PyResult<Self> {
        let present = ranges(present)?;
        if size.is_none() && !present.is_empty() {
            return Err(PyValueError::new_err("a blob with chunks has a size; pass what was claimed"));
        }
        let (hash, limit) = (hash32(hash)?, max_size);
        let blob = aioiroh_io::Blob::resume(hash, data_path, outboard_path, size, present, limit);
        Ok(Self(Arc::new(blob)))
    }

    #[getter]
    fn hash<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.hash())
    }

    #[getter]
    fn size(&self) -> Option<u64> {
        self.0.size()
    }

    #[getter]
    fn size_verified(&self) -> bool {
        self.0.verified_size().is_some()
    }

    #[getter]
    fn present<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.0.present().boundaries())
    }

    #[getter]
    fn is_complete(&self) -> bool {
        self.0.is_complete()
    }

    fn read<'py>(&self, py: Python<'py>, offset: u64, n: usize) -> PyResult<Bound<'py, PyBytes>> {
        let read = if n > LONG { py.detach(|| self.0.read(offset, n)) } else { self.0.read(offset, n) };
        match read {
            Ok(Ok(bytes)) => Ok(PyBytes::new(py, &bytes)),
            Ok(Err(error)) => Err(os_error(&error)),
            Err(_) => Err(PyValueError::new_err(format!(
                "bytes {offset}..{} are not all here; get them first",
                offset.saturating_add(n as u64)
            ))),
        }
    }

    fn response<'py>(&self, py: Python<'py>, boundaries: Vec<u64>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        Ok(self.0.response(&ranges(boundaries)?).map(|bytes| PyBytes::new(py, &bytes)))
    }

    fn outboard<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.outboard().map_err(|error| os_error(&error))?))
    }

    #[getter]
    fn loose_outboard<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.loose_outboard().map(|bytes| PyBytes::new(py, &bytes))
    }

    fn spill(&self) -> PyResult<()> {
        self.0.spill().map_err(|error| os_error(&error))
    }

    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.sync()).map_err(|error| os_error(&error))
    }

    fn close(&self) {
        self.0.close();
    }
}

/// The disk worker.
#[pyclass(frozen, module = "aioiroh._native")]
struct Worker(aioiroh_io::Worker);

#[pymethods]
impl Worker {
    #[new]
    #[pyo3(signature = (*, inline=false, journal=false))]
    fn new(inline: bool, journal: bool) -> PyResult<Self> {
        let worker = match (inline, journal) {
            (_, false) => aioiroh_io::Worker::new(inline),
            (true, true) => aioiroh_io::Worker::with_journal(),
            (false, true) => return Err(PyValueError::new_err("only an inline worker keeps a journal")),
        };
        worker.map(Self).map_err(|error| os_error(&error))
    }

    fn journal<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let ops = self.0.journal().ok_or_else(|| {
            PyValueError::new_err("this worker keeps no journal; make one with journal=True")
        })?;
        let ops = ops.iter().map(|op| {
            let (kind, path) = (op.kind.name(), op.path.as_os_str());
            (kind, path, op.offset, PyBytes::new(py, &op.data)).into_pyobject(py)
        });
        PyList::new(py, ops.collect::<PyResult<Vec<_>>>()?)
    }

    fn fileno(&self) -> RawFd {
        self.0.fd()
    }

    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let events = self.0.poll().into_iter().map(|event| worker_event(py, event));
        PyList::new(py, events.collect::<PyResult<Vec<_>>>()?)
    }

    #[pyo3(signature = (path, outboard_path=None))]
    fn hash_file(&self, path: PathBuf, outboard_path: Option<PathBuf>) -> PyResult<u64> {
        self.start(Job::HashFile { path, outboard: outboard_path })
    }

    fn hash_files(&self, paths: Vec<PathBuf>) -> PyResult<u64> {
        self.start(Job::HashFiles { paths })
    }

    #[pyo3(signature = (source, target, outboard_path=None))]
    fn import_file(&self, source: PathBuf, target: PathBuf, outboard_path: Option<PathBuf>) -> PyResult<u64> {
        self.start(Job::ImportFile { from: source, to: target, outboard: outboard_path })
    }

    fn validate(
        &self,
        hash: &[u8],
        data_path: PathBuf,
        outboard: &Bound<'_, PyAny>,
        size: u64,
        trusted: Vec<u64>,
    ) -> PyResult<u64> {
        let (hash, outboard, trusted) = (hash32(hash)?, outboard_at(outboard)?, ranges(trusted)?);
        self.start(Job::Validate { hash, data: data_path, outboard, size, trusted })
    }

    fn write_blobs(&self, blobs: Vec<(Bound<'_, Blob>, PathBuf)>) -> PyResult<u64> {
        let blobs = blobs.into_iter().map(|(blob, path)| (blob.get().0.clone(), path)).collect();
        self.start(Job::WriteBlobs { blobs })
    }

    fn sync_files(&self, paths: Vec<PathBuf>) -> PyResult<u64> {
        self.start(Job::SyncFiles { paths })
    }

    fn cancel(&self, job: u64) {
        self.0.cancel(job);
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

impl Worker {
    fn start(&self, job: Job) -> PyResult<u64> {
        self.0.start(job).map_err(|error| os_error(&error))
    }
}

fn worker_event(py: Python<'_>, event: Event) -> PyResult<Tuple> {
    let bytes = |data: &[u8]| PyBytes::new(py, data);
    let (id, kind, value) = match event {
        Event::Transfer(id) => (id, "transfer", py.None()),
        Event::Job(id, event) => {
            let (kind, value) = match event {
                JobEvent::Progress(done) => ("progress", done.into_py_any(py)?),
                JobEvent::File { index, hash, size, outboard } => {
                    ("file", (index, bytes(&hash), size, bytes(&outboard)).into_py_any(py)?)
                }
                JobEvent::FileError { index, error } => {
                    let (errno, text, _) = describe(&error);
                    ("file_error", (index, errno, text).into_py_any(py)?)
                }
                JobEvent::Hashed { hash, size, outboard } => {
                    ("done", (bytes(&hash), size, outboard.as_deref().map(bytes)).into_py_any(py)?)
                }
                JobEvent::Validated { present } => {
                    ("done", PyTuple::new(py, present.boundaries())?.into_py_any(py)?)
                }
                JobEvent::Written { size } => ("done", size.into_py_any(py)?),
                JobEvent::Done => ("done", py.None()),
                JobEvent::Error(error) => ("error", os_args(&error).into_py_any(py)?),
            };
            (id, kind, value)
        }
    };
    Ok((id, kind, value).into_pyobject(py)?.unbind())
}

fn reports(py: Python<'_>, reports: Vec<Report>) -> PyResult<Bound<'_, PyList>> {
    let list = PyList::empty(py);
    let mut reports = reports.into_iter().peekable();
    while let Some(report) = reports.next() {
        let tuple = match report {
            Report::Whole { item, data } => {
                let blobs = PyList::new(py, [PyBytes::new(py, &data)])?;
                while let Some(Report::Whole { data, .. }) =
                    reports.next_if(|next| matches!(next, Report::Whole { .. }))
                {
                    blobs.append(PyBytes::new(py, &data))?;
                }
                ("whole", item, blobs).into_pyobject(py)?
            }
            Report::Wanted { item, size } => ("wanted", item, size).into_pyobject(py)?,
            Report::Started { item, size } => ("started", item, size).into_pyobject(py)?,
            Report::Size { item, size } => ("size", item, size).into_pyobject(py)?,
            Report::Progress { item, bytes } => ("progress", item, bytes).into_pyobject(py)?,
            Report::Done { item } => ("done", item).into_pyobject(py)?,
            Report::Error { item, kind, detail } => {
                let detail = match detail {
                    Detail::None => py.None(),
                    Detail::Code(code) => code.into_py_any(py)?,
                    Detail::Chunks { lo, hi } => (lo, hi).into_py_any(py)?,
                    Detail::Size { claimed, other } => (claimed, other).into_py_any(py)?,
                    Detail::Os { errno, text, path } => {
                        (errno, text, path.map(OsString::from)).into_py_any(py)?
                    }
                };
                ("error", item, kind, detail).into_pyobject(py)?
            }
            Report::End { trailing } => ("end", trailing).into_pyobject(py)?,
        };
        list.append(tuple)?;
    }
    Ok(list)
}

fn attached_twice(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!(
        "this {what} was attached to a stream before; make a new one for each stream"
    ))
}

/// The native end of a receive stream.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct BlobReceiver(Receiver);

#[pymethods]
impl BlobReceiver {
    #[new]
    #[pyo3(signature = (worker, *, max_size, max_total=None, stop_code=0))]
    fn new(
        worker: &Bound<'_, Worker>,
        max_size: u64,
        max_total: Option<u64>,
        stop_code: u64,
    ) -> PyResult<Self> {
        let receiver = Receiver::new(&worker.get().0, max_size, max_total, stop_code);
        receiver.map(Self).map_err(|error| os_error(&error))
    }

    #[getter]
    fn id(&self) -> u64 {
        self.0.id()
    }

    fn expect(&self, items: Vec<(Bound<'_, PyBytes>, Vec<u64>, Bound<'_, Blob>)>) -> PyResult<()> {
        let mut expected = Vec::with_capacity(items.len());
        for (hash, boundaries, blob) in items {
            let blob = blob.get().0.clone();
            if hash.as_bytes() != blob.hash() {
                return Err(PyValueError::new_err("the hash of an item is not that of its blob"));
            }
            expected.push(Item::Part { query: ranges(boundaries)?, blob });
        }
        self.0.expect(expected).map_err(|_| {
            PyValueError::new_err("a blob that was opened or made from bytes cannot be received into")
        })
    }

    fn expect_whole(&self, hashes: Vec<Bound<'_, PyBytes>>) -> PyResult<()> {
        let items = hashes.iter().map(|hash| hash32(hash.as_bytes()).map(Item::Whole));
        // Those need nothing to be written to.
        let _ = self.0.expect(items.collect::<PyResult<_>>()?);
        Ok(())
    }

    fn provide(&self, blob: &Bound<'_, Blob>) -> PyResult<()> {
        self.0.provide(blob.get().0.clone()).map_err(|_| {
            PyValueError::new_err("this is not the blob that the receiver wants, or not to be written")
        })
    }

    fn finish(&self) {
        self.0.finish();
    }

    fn allow(&self, bytes: u64) -> u64 {
        self.0.allow(bytes)
    }

    #[getter]
    fn received(&self) -> u64 {
        self.0.received()
    }

    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        reports(py, self.0.poll())
    }
}

impl BlobReceiver {
    /// The end to attach to a stream, once.
    pub fn sink(&self) -> PyResult<Box<dyn StreamSink>> {
        self.0.sink().ok_or_else(|| attached_twice("receiver"))
    }
}

/// The native end of a send stream.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct BlobSender(Sender);

#[pymethods]
impl BlobSender {
    #[new]
    fn new(worker: &Bound<'_, Worker>) -> PyResult<Self> {
        Sender::new(&worker.get().0).map(Self).map_err(|error| os_error(&error))
    }

    #[getter]
    fn id(&self) -> u64 {
        self.0.id()
    }

    fn push(&self, items: Vec<(Bound<'_, Blob>, Vec<u64>)>) -> PyResult<()> {
        let items = items
            .into_iter()
            .map(|(blob, boundaries)| Ok((blob.get().0.clone(), ranges(boundaries)?)))
            .collect::<PyResult<Vec<_>>>()?;
        for (blob, query) in items {
            self.0.push(blob, query);
        }
        Ok(())
    }

    fn prefix(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.0.prefix(Bytes::from(contents(data)?.into_owned()));
        Ok(())
    }

    fn finish(&self) {
        self.0.finish();
    }

    fn reset(&self, code: u64) {
        self.0.reset(code);
    }

    fn allow(&self, bytes: u64) -> u64 {
        self.0.allow(bytes)
    }

    #[getter]
    fn sent(&self) -> u64 {
        self.0.sent()
    }

    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        reports(py, self.0.poll())
    }
}

impl BlobSender {
    /// The end to attach to a stream, once.
    pub fn source(&self) -> PyResult<Box<dyn StreamSource>> {
        self.0.source().ok_or_else(|| attached_twice("sender"))
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("BaoError", module.py().get_type::<BaoError>())?;
    module.add_class::<Blake3>()?;
    module.add_class::<Blob>()?;
    module.add_class::<Worker>()?;
    module.add_class::<BlobReceiver>()?;
    module.add_class::<BlobSender>()?;
    module.add_function(wrap_pyfunction!(hash_of, module)?)?;
    module.add_function(wrap_pyfunction!(hash_many, module)?)?;
    module.add_function(wrap_pyfunction!(encode_blob, module)?)?;
    module.add_function(wrap_pyfunction!(decode_blob, module)?)
}
