/* binding.h: what the files of this room share. No other room includes Python.h. */
#ifndef SH_BINDING_H
#define SH_BINDING_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#define PY_ARRAY_UNIQUE_SYMBOL sparsehopfield_ARRAY_API
#define PY_UFUNC_UNIQUE_SYMBOL sparsehopfield_UFUNC_API
#ifndef SH_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#define NO_IMPORT_UFUNC
#endif
#include <numpy/arrayobject.h>
#include <numpy/dtype_api.h>
#include <numpy/ufuncobject.h>
#include "runtime/runtime.h"
#include "sparsehopfield_layers.h"

/* Name the allocator of a call: malloc, but in builds for tests that of testing.c. */
#ifdef SH_TESTING
void *sh_test_allocate(void *user, size_t bytes);
void sh_test_release(void *user, void *block);
extern PyMethodDef sh_test_operations[];
#define SH_ALLOCATE sh_test_allocate
#define SH_RELEASE sh_test_release
#else
#define SH_ALLOCATE NULL
#define SH_RELEASE NULL
#endif

/* A call's context: its allocator, and interruption by signals. Python runs signal handlers in its main thread alone, so
 * calls of that thread alone check for them. Other threads never take the GIL, unless they were given a function to tell
 * their progress: a thread that takes it after Python has ended does not return. */
typedef struct {
    sh_context core;
    struct timespec asked; /* when signals were last checked; 0: never */
    int raised;            /* a Python exception is set */
    PyObject *progress;    /* called with what is done and the total; NULL: nobody is told. Borrowed */
} sh_call;
sh_call sh_begin_call(int threads);
/* sh_tell_progress: has a call tell a function its progress, unless that is None. What it raises ends the call. */
void sh_tell_progress(sh_call *call, PyObject *function);
#define SH_CALL(call) ((call).core.user = &(call), &(call).core)

/* Declares a call and its status, and makes it: without the GIL, and whatever floating-point settings and flags the
 * thread has, which it has afterwards. */
#define SH_RUN(call, status, EXPRESSION) SH_RUN_AND_TELL(call, status, Py_None, EXPRESSION)
#define SH_RUN_AND_TELL(call, status, progress, EXPRESSION)                                                            \
    sh_call call = sh_begin_call(sh_get_num_threads());                                                                \
    sh_tell_progress(&call, progress);                                                                                 \
    sh_status status;                                                                                                  \
    Py_BEGIN_ALLOW_THREADS const sh_float_settings settings_before = sh_float_default();                               \
    status = EXPRESSION;                                                                                               \
    sh_float_restore(settings_before);                                                                                 \
    Py_END_ALLOW_THREADS

/* sh_watch_main_thread: finds out which thread is Python's main one, now and in children; -1 with an exception. */
int sh_watch_main_thread(void);

/* The functions below that take an argument return 0, or -1 with an exception that names it. */

/* sh_expect: checks the number of arguments. */
int sh_expect(Py_ssize_t got, Py_ssize_t wanted);
/* Raises TypeError for an array that Python would not have passed. Defined here, where compilers see that it is -1. */
static inline int sh_wrong_array(const char *name) {
    PyErr_Format(PyExc_TypeError, "%s: not the array that is wanted here", name);
    return -1;
}

/* sh_is_in_place: tells whether an object is an array whose numbers can be read where they lie: aligned, and in the byte order
 * of this machine; 0 with an exception that says what to do. */
int sh_is_in_place(PyObject *object, const char *name);

/* Turns a status into an exception; returns NULL. */
PyObject *sh_raise(const sh_call *call, sh_status status, sh_type type);

/* Takes a structure: None, which leaves all as it is, or pairs, k, width, dilation, causal, seed, rows, columns, position,
 * start and column (arrays or None, which must outlive the structure). */
int sh_as_structure(PyObject *object, int64_t queries, sh_structure *s, const sh_structure **structure);
/* Checks that an array may be written to. */
int sh_may_write(PyObject *array, const char *name);
/* Takes a two-dimensional array of a type of the core's whose rows are contiguous. */
int sh_as_rows(PyObject *object, const char *name, sh_rows *rows);

/* Takes an array of this type (number: NumPy's), (samples, rows, heads, features) or, shared by samples, (rows, heads,
 * features). */
int sh_as_stack(PyObject *object, const char *name, int number, sh_stack *stack, int64_t shape[4]);
/* Takes offsets (samples + 1), from 0 up to `rows`; None leaves all as it is. */
int sh_as_offsets(PyObject *object, int64_t samples, int64_t rows, const int64_t **offsets);

int sh_add_row_maps(PyObject *module);
extern PyMethodDef sh_operations[], sh_layer_operations[], sh_feature_operations[];
PyObject *sh_choose_path(PyObject *module, PyObject *name);
#endif
