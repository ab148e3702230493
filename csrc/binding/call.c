/* call.c: interruption and errors of a call, between the core and Python. */
#define _GNU_SOURCE
#include <time.h>
#include "binding/binding.h"
#include "runtime/system.h"
#include <stdatomic.h>
#include <string.h>

/* The path of all calls under maps with a cutoff. */
static atomic_int chosen_path = SH_PATH_AUTO;

PyObject *sh_choose_path(PyObject *module, PyObject *argument) {
    (void)module;
    static const char *const names[] = {"auto", "scan", "lines", "columns"};
    PyObject *bytes = PyUnicode_AsUTF8String(argument);
    if (!bytes) return NULL;
    const char *name = PyBytes_AsString(bytes);
    for (int i = 0; i < 4; i++)
        if (!strcmp(name, names[i])) {
            Py_DECREF(bytes);
            return PyUnicode_FromString(names[atomic_exchange(&chosen_path, i)]);
        }
    Py_DECREF(bytes);
    return PyErr_Format(PyExc_ValueError, "path: must be auto, scan, lines or columns");
}

/* Checks signals 20 times a second: often enough for Ctrl-C, too seldom to cost. */
static int interrupted(void *user) {
    sh_call *call = user;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double passed = (double)(now.tv_sec - call->asked.tv_sec) + 1e-9 * (double)(now.tv_nsec - call->asked.tv_nsec);
    if (passed < 0.05) return call->raised;
    call->asked = now;
    PyGILState_STATE gil = PyGILState_Ensure();
    if (PyErr_CheckSignals() != 0) call->raised = 1;
    PyGILState_Release(gil);
    return call->raised;
}

/* Calls the function that is told the progress. */
static void progressed(void *user, int64_t done, int64_t total) {
    sh_call *call = user;
    if (call->raised) return;
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *result = PyObject_CallFunction(call->progress, "LL", (long long)done, (long long)total);
    if (!result) call->raised = 1;
    Py_XDECREF(result);
    PyGILState_Release(gil);
}

static int has_raised(void *user) { return ((const sh_call *)user)->raised; }

void sh_tell_progress(sh_call *call, PyObject *function) {
    if (function == Py_None) return;
    call->progress = function;
    call->core.progress = progressed;
    if (!call->core.interrupted) call->core.interrupted = has_raised; /* threads that no signal interrupts */
}

static _Atomic unsigned long main_thread;

static void forked(void) { atomic_store(&main_thread, PyThread_get_thread_ident()); }

int sh_watch_main_thread(void) {
    PyObject *module = PyImport_ImportModule("threading");
    PyObject *thread = module ? PyObject_CallMethod(module, "main_thread", NULL) : NULL;
    PyObject *ident = thread ? PyObject_GetAttrString(thread, "ident") : NULL;
    if (ident) atomic_store(&main_thread, PyLong_AsUnsignedLong(ident));
    Py_XDECREF(ident);
    Py_XDECREF(thread);
    Py_XDECREF(module);
    if (PyErr_Occurred()) return -1;
    static int watched;
    if (!watched) sh_at_fork(forked);
    watched = 1;
    return 0;
}

sh_call sh_begin_call(int threads) {
    sh_call call = {.core = {.allocate = SH_ALLOCATE, .release = SH_RELEASE}};
    if (PyThread_get_thread_ident() == atomic_load(&main_thread)) call.core.interrupted = interrupted;
    call.core.threads = threads;
    call.core.path = (sh_path)atomic_load(&chosen_path);
    return call;
}

int sh_expect(Py_ssize_t got, Py_ssize_t wanted) {
    if (got == wanted) return 0;
    PyErr_Format(PyExc_TypeError, "takes %zd arguments, got %zd", wanted, got);
    return -1;
}

int sh_is_in_place(PyObject *object, const char *name) {
    PyArrayObject *a = (PyArrayObject *)object;
    if (!PyArray_Check(object))
        PyErr_Format(PyExc_TypeError, "%s: must be an array", name);
    else if (!PyArray_ISALIGNED(a))
        PyErr_Format(PyExc_ValueError,
                     "%s: is not aligned, its numbers do not begin at multiples of their size; numpy.require(%s, "
                     "requirements='CA') gives an array that is",
                     name, name);
    else if (PyArray_ISBYTESWAPPED(a))
        PyErr_Format(PyExc_ValueError,
                     "%s: has another byte order than this machine; %s.astype(%s.dtype.newbyteorder('=')) has its own",
                     name, name, name);
    else
        return 1;
    return 0;
}

PyObject *sh_raise(const sh_call *call, sh_status status, sh_type type) {
    const char *argument = call->core.argument ? call->core.argument : "argument";
    const char *dtype = type == SH_FLOAT64 ? "float64" : "float32";
    long long row = (long long)call->core.row;
    switch (status) {
    case SH_NO_MEMORY: return PyErr_NoMemory();
    case SH_INTERRUPTED:
        if (!PyErr_Occurred()) PyErr_SetNone(PyExc_KeyboardInterrupt);
        return NULL;
    case SH_NOT_FINITE:
        return PyErr_Format(PyExc_ValueError, "%s: row %lld contains NaN or infinity; every entry must be finite",
                            argument, row);
    case SH_OVERFLOW:
        return PyErr_Format(PyExc_OverflowError,
                            "%s: the scores of row %lld may exceed the largest %s; scale the arrays down%s", argument,
                            row, dtype, type == SH_FLOAT64 ? "" : " or use float64");
    case SH_ZERO_ROW:
        return PyErr_Format(PyExc_ValueError,
                            "%s: row %lld has length 0, which has no cosine similarity; remove it or use "
                            "similarity='dot' or 'euclidean'",
                            argument, row);
    case SH_FORKED:
        PyErr_SetString(PyExc_RuntimeError,
                        "a signal handler forked this process within a call whose work other threads shared; they are "
                        "not in the child, so its call has no result (an array that it changes in place may be half "
                        "changed). Call again, or do not fork in a signal handler");
        return NULL;
    case SH_UNDEFINED: return PyErr_Format(PyExc_ValueError, "%s: this map has no energy", argument);
    case SH_SINGULAR:
        return PyErr_Format(PyExc_ArithmeticError,
                            "%s: query %lld rests where the implicit gradient does not exist, at a fixed point that is "
                            "not isolated or not stable (beta is near a critical value); use gradient='unrolled', or "
                            "another beta",
                            argument, row);
    default: return PyErr_Format(PyExc_ValueError, "%s: %s (row %lld)", argument, sh_status_name(status), row);
    }
}
