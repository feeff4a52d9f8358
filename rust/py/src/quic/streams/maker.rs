//! Making the objects of a stream, of which every request has three.

use pyo3::{
    PyTypeInfo,
    exceptions::PyTypeError,
    ffi,
    gc::{PyTraverseError, PyVisit},
    prelude::*,
    types::{PyTuple, PyType},
};

use super::{receiving::RecvHalf, sending::SendHalf};

/// See the stub file.
#[pyclass(frozen, module = "aioiroh._native")]
pub struct BiMaker {
    pair: Py<PyType>,
    send: Py<PyType>,
    recv: Py<PyType>,
}

#[pymethods]
impl BiMaker {
    #[new]
    fn new(pair: Bound<'_, PyType>, send: Bound<'_, PyType>, recv: Bound<'_, PyType>) -> PyResult<Self> {
        if pair.is_subclass_of::<PyTuple>()?
            && send.is_subclass_of::<SendHalf>()?
            && recv.is_subclass_of::<RecvHalf>()?
        {
            return Ok(Self { pair: pair.unbind(), send: send.unbind(), recv: recv.unbind() });
        }
        Err(PyTypeError::new_err("classes of a pair and of its two halves are needed"))
    }

    fn __call__<'py>(
        &self,
        py: Python<'py>,
        connection: Bound<'py, PyAny>,
        stream: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let arguments = (connection, stream).into_pyobject(py)?;
        let send = make::<SendHalf>(self.send.bind(py), &arguments)?;
        let recv = make::<RecvHalf>(self.recv.bind(py), &arguments)?;
        let halves = PyTuple::new(py, [send, recv])?;
        make::<PyTuple>(self.pair.bind(py), &(halves,).into_pyobject(py)?)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.pair)?;
        visit.call(&self.send)?;
        visit.call(&self.recv)
    }
}

/// An object of a class that extends `T` and adds nothing to its making. Calling the class costs as much again.
fn make<'py, T: PyTypeInfo>(
    class: &Bound<'py, PyType>,
    arguments: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = class.py();
    // SAFETY: every type that can be made has this slot, of this type; the class is a subclass of `T`, and so
    // what `T.__new__` may be asked for.
    unsafe {
        let new = ffi::PyType_GetSlot(T::type_object_raw(py), ffi::Py_tp_new);
        let new: ffi::newfunc = std::mem::transmute(new);
        Bound::from_owned_ptr_or_err(py, new(class.as_type_ptr(), arguments.as_ptr(), std::ptr::null_mut()))
    }
}
