/* features.c: sums of features and what they answer (features/), between Python's arrays and the core. */
#define _GNU_SOURCE
#include <time.h>
#include "binding.h"
#include <string.h>

static int wrong(const char *name) {
    PyErr_Format(PyExc_TypeError, "%s: not the array that is wanted here", name);
    return -1;
}

/* Contiguous doubles of a shape (columns < 0: one axis). */
static int as_doubles(PyObject *object, const char *name, int64_t rows, int64_t columns, double **data) {
    PyArrayObject *a = (PyArrayObject *)object;
    const int axes = columns < 0 ? 1 : 2;
    if (!PyArray_Check(object) || PyArray_TYPE(a) != NPY_FLOAT64 || PyArray_NDIM(a) != axes ||
        !PyArray_IS_C_CONTIGUOUS(a) || !PyArray_ISBEHAVED_RO(a) || PyArray_DIM(a, 0) != rows ||
        (axes == 2 && PyArray_DIM(a, 1) != columns))
        return wrong(name);
    *data = PyArray_DATA(a);
    return 0;
}

enum { MAP, SIZE, BETA, PROJECTION, BIAS, MODEL };

/* map, size, beta, projection, bias: of rows of d numbers */
static int as_features(PyObject *const *args, int64_t d, int64_t v, sh_type type, sh_features *f) {
    *f = (sh_features){.type = type, .d = d, .v = v};
    f->map = (sh_feature_map)PyLong_AsLong(args[MAP]);
    f->size = PyLong_AsLongLong(args[SIZE]);
    f->beta = PyFloat_AsDouble(args[BETA]);
    f->bias = PyFloat_AsDouble(args[BIAS]);
    if (PyErr_Occurred()) return -1;
    double *projection = NULL;
    if (args[PROJECTION] != Py_None && as_doubles(args[PROJECTION], "projection", f->size, d, &projection) < 0)
        return -1;
    f->projection = projection;
    return 0;
}

static int as_state(PyObject *const *args, const sh_features *f, sh_feature_state *s) {
    if (as_doubles(args[0], "top", f->size, -1, &s->top) < 0 ||
        as_doubles(args[1], "total", f->size, -1, &s->total) < 0)
        return -1;
    return as_doubles(args[2], "sum", f->size, f->v, &s->sum);
}

/* A writeable array whose rows are contiguous, of this shape. */
static int as_out(PyObject *object, int64_t n, const sh_features *f, void **data, int64_t *stride) {
    sh_rows rows;
    if (sh_as_rows(object, "out", &rows) < 0) return -1;
    const int64_t size = (int64_t)PyArray_ITEMSIZE((PyArrayObject *)object);
    if (!PyArray_ISWRITEABLE((PyArrayObject *)object) || rows.type != f->type || rows.n != n || rows.d != f->v ||
        rows.stride < rows.d * size || rows.stride % size)
        return wrong("out");
    *data = (void *)rows.data;
    *stride = rows.stride / size;
    return 0;
}

static PyObject *finish(const sh_call *call, sh_status status, const sh_features *f, int64_t products) {
    if (status == SH_OK) return PyLong_FromLongLong((long long)products);
    const char *argument = call->core.argument, *dtype = f->type == SH_FLOAT64 ? "float64" : "float32";
    if (status != SH_OVERFLOW || !argument) return sh_raise(call, status, f->type);
    if (!strcmp(argument, "kernels") || !strcmp(argument, "sums"))
        return PyErr_Format(PyExc_OverflowError, "patterns: their %s exceed the largest %s; scale the arrays down",
                            argument, dtype);
    if (!strcmp(argument, "beta"))
        return PyErr_Format(PyExc_OverflowError, "beta: times the squared length of row %lld it exceeds %s",
                            (long long)call->core.row, f->type == SH_FLOAT64 ? "1e300" : "1e70");
    return PyErr_Format(PyExc_OverflowError, "%s: the squared length of row %lld exceeds the largest float64", argument,
                        (long long)call->core.row);
}

/* cosine, patterns, values, scale, check_values */
enum { COSINE, PATTERNS, VALUES, SCALE, CHECKED, STORED };
static int as_stored(PyObject *const *args, sh_rows *patterns, sh_rows *values, int *cosine, int64_t *v) {
    if (sh_as_rows(args[PATTERNS], "patterns", patterns) < 0) return -1;
    *v = patterns->d;
    if (args[VALUES] != Py_None) {
        if (sh_as_rows(args[VALUES], "values", values) < 0) return -1;
        values->unchecked = !PyObject_IsTrue(args[CHECKED]);
        *v = values->d;
    }
    patterns->scale = (float)PyFloat_AsDouble(args[SCALE]);
    *cosine = PyObject_IsTrue(args[COSINE]);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *add(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    enum { TYPE = (int)MODEL + (int)STORED, STATE, ARGUMENTS = STATE + 3 };
    if (nargs != ARGUMENTS) return PyErr_Format(PyExc_TypeError, "takes %d arguments, got %zd", ARGUMENTS, nargs);
    sh_features f;
    sh_feature_state s;
    sh_rows patterns, values;
    int cosine;
    int64_t v, products = 0;
    if (as_stored(args + MODEL, &patterns, &values, &cosine, &v) < 0 ||
        as_features(args, patterns.d, v, PyLong_AsLong(args[TYPE]) == SH_FLOAT64 ? SH_FLOAT64 : SH_FLOAT32, &f) < 0 ||
        as_state(args + STATE, &f, &s) < 0)
        return NULL;
    f.cosine = cosine;
    const sh_rows *own = args[MODEL + VALUES] == Py_None ? NULL : &values;
    sh_call call = sh_begin_call(sparsehopfield_get_num_threads());
    sh_status status;
    Py_BEGIN_ALLOW_THREADS;
    status = sh_features_add(SH_CALL(call), &f, &patterns, own, s, &products);
    Py_END_ALLOW_THREADS;
    return finish(&call, status, &f, products);
}

static PyObject *mix(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    enum { STATE = MODEL, QUERIES = STATE + 3, OUT, ARGUMENTS };
    if (nargs != ARGUMENTS) return PyErr_Format(PyExc_TypeError, "takes %d arguments, got %zd", ARGUMENTS, nargs);
    sh_features f;
    sh_feature_state s;
    sh_rows queries, out;
    void *data;
    int64_t stride, products = 0;
    if (sh_as_rows(args[QUERIES], "queries", &queries) < 0 || sh_as_rows(args[OUT], "out", &out) < 0 ||
        as_features(args, queries.d, out.d, queries.type, &f) < 0 || as_state(args + STATE, &f, &s) < 0 ||
        as_out(args[OUT], queries.n, &f, &data, &stride) < 0)
        return NULL;
    sh_call call = sh_begin_call(sparsehopfield_get_num_threads());
    sh_status status;
    Py_BEGIN_ALLOW_THREADS;
    status = sh_features_mix(SH_CALL(call), &f, s, &queries, data, stride, &products);
    Py_END_ALLOW_THREADS;
    return finish(&call, status, &f, products);
}

static PyObject *causal(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    enum { QUERIES = (int)MODEL + (int)STORED, FAINT, OUT, ARGUMENTS };
    if (nargs != ARGUMENTS) return PyErr_Format(PyExc_TypeError, "takes %d arguments, got %zd", ARGUMENTS, nargs);
    sh_features f;
    sh_rows queries, patterns, values;
    int cosine;
    void *data;
    int64_t v, stride, products = 0;
    const double faint = PyFloat_AsDouble(args[FAINT]);
    if (sh_as_rows(args[QUERIES], "queries", &queries) < 0 ||
        as_stored(args + MODEL, &patterns, &values, &cosine, &v) < 0 ||
        as_features(args, queries.d, v, queries.type, &f) < 0 || as_out(args[OUT], queries.n, &f, &data, &stride) < 0)
        return NULL;
    f.cosine = cosine;
    const sh_rows *own = args[MODEL + VALUES] == Py_None ? NULL : &values;
    sh_call call = sh_begin_call(sparsehopfield_get_num_threads());
    sh_status status;
    Py_BEGIN_ALLOW_THREADS;
    status = sh_features_causal(SH_CALL(call), &f, &queries, &patterns, own, faint, data, stride, &products);
    Py_END_ALLOW_THREADS;
    return finish(&call, status, &f, products);
}

#define FAST(f) (PyCFunction)(void (*)(void)) f, METH_FASTCALL
PyMethodDef sh_feature_operations[] = {
    {"features_add", FAST(add),
     "features_add(map, size, beta, projection, bias, cosine, patterns, values, scale, check_values, dtype, top, "
     "total, "
     "sum) -> multiplications; the state in place"},
    {"features_mix", FAST(mix),
     "features_mix(map, size, beta, projection, bias, top, total, sum, queries, out) -> multiplications"},
    {"features_causal", FAST(causal),
     "features_causal(map, size, beta, projection, bias, cosine, patterns, values, scale, check_values, queries, "
     "faint, "
     "out) -> multiplications"},
    {NULL, NULL, 0, NULL},
};
