/* features.c: sums of features and what they answer (features/), between Python's arrays and the core. */
#define _GNU_SOURCE
#include <time.h>
#include "binding/binding.h"
#include <string.h>

static int wrong(const char *name) {
    PyErr_Format(PyExc_TypeError, "%s: not the array that is wanted here", name);
    return -1;
}

/* Contiguous doubles of a shape (columns < 0: one axis), which may be `written` to. */
static int as_doubles(PyObject *object, const char *name, int64_t rows, int64_t columns, int written, double **data) {
    PyArrayObject *a = (PyArrayObject *)object;
    const int axes = columns < 0 ? 1 : 2;
    if (!sh_is_in_place(object, name)) return -1;
    if (PyArray_TYPE(a) != NPY_FLOAT64 || PyArray_NDIM(a) != axes || !PyArray_IS_C_CONTIGUOUS(a) ||
        PyArray_DIM(a, 0) != rows || (axes == 2 && PyArray_DIM(a, 1) != columns))
        return wrong(name);
    if (written && sh_may_write(object, name) < 0) return -1;
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
    if (args[PROJECTION] != Py_None && as_doubles(args[PROJECTION], "projection", f->size, d, 0, &projection) < 0)
        return -1;
    f->projection = projection;
    return 0;
}

static int as_state(PyObject *const *args, const sh_features *f, int written, sh_feature_state *s) {
    if (as_doubles(args[0], "top", f->size, -1, written, &s->top) < 0 ||
        as_doubles(args[1], "total", f->size, -1, written, &s->total) < 0)
        return -1;
    return as_doubles(args[2], "sum", f->size, f->v, written, &s->sum);
}

/* A writeable array whose rows are contiguous, of this shape. */
static int as_out(PyObject *object, int64_t n, const sh_features *f, void **data, int64_t *stride) {
    sh_rows rows;
    if (sh_as_rows(object, "out", &rows) < 0) return -1;
    const int64_t size = (int64_t)PyArray_ITEMSIZE((PyArrayObject *)object);
    if (sh_may_write(object, "out") < 0) return -1;
    if (rows.type != f->type || rows.n != n || rows.d != f->v || rows.stride < rows.d * size || rows.stride % size)
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
        as_state(args + STATE, &f, 1, &s) < 0)
        return NULL;
    f.cosine = cosine;
    const sh_rows *own = args[MODEL + VALUES] == Py_None ? NULL : &values;
    SH_RUN(call, status, sh_features_add(SH_CALL(call), &f, &patterns, own, s, &products))
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
        as_features(args, queries.d, out.d, queries.type, &f) < 0 || as_state(args + STATE, &f, 0, &s) < 0 ||
        as_out(args[OUT], queries.n, &f, &data, &stride) < 0)
        return NULL;
    SH_RUN(call, status, sh_features_mix(SH_CALL(call), &f, s, &queries, data, stride, &products))
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
    SH_RUN(call, status,
           sh_features_causal(SH_CALL(call), &f, &queries, &patterns, own, faint, data, stride, &products))
    return finish(&call, status, &f, products);
}

/* --- samples and heads ---------------------------------------------------------------------------- */

/* map, size, beta (H), projection (H, D, d), faint, samples, query, key, value, offsets, padding */
enum { FAINTEST = PROJECTION + 1, SAMPLES, QUERY, KEY, VALUE, OFFSETS, PADDING, SETS };

/* Rows of each set, of this many numbers: of all samples and heads where they are written to, else these or one. */
static int as_rows_of_sets(PyObject *object, const char *name, const sh_feature_sets *s, int64_t rows, int64_t width,
                           int listed, int written, sh_stack *stack) {
    const int number = s->features.type == SH_FLOAT64 ? NPY_FLOAT64 : NPY_FLOAT32;
    int64_t shape[4];
    if (sh_as_stack(object, name, number, stack, shape) < 0) return -1;
    const int64_t samples = listed ? 1 : s->samples;
    const int every = PyArray_NDIM((PyArrayObject *)object) == 4;
    if (shape[1] != rows || shape[3] != width || (shape[2] != s->heads && (written || shape[2] != 1)) ||
        (shape[0] != samples && (written || every)) || (listed && every))
        return wrong(name);
    return written ? sh_may_write(object, name) : 0;
}

/* causal: the queries of ragged bags are one list, as the rows are */
static int as_sets(PyObject *const *args, int causal, sh_feature_sets *s) {
    *s = (sh_feature_sets){0};
    PyArrayObject *query = (PyArrayObject *)args[QUERY], *key = (PyArrayObject *)args[KEY],
                  *value = (PyArrayObject *)args[VALUE];
    for (int i = QUERY; i <= VALUE; i++)
        if (!PyArray_Check(args[i]) || PyArray_NDIM((PyArrayObject *)args[i]) < 3) return wrong("rows");
    if (!PyArray_Check(args[BETA]) || PyArray_NDIM((PyArrayObject *)args[BETA]) != 1) return wrong("beta");
    sh_features *f = &s->features;
    double *beta, *projection = NULL;
    s->heads = PyArray_DIM((PyArrayObject *)args[BETA], 0);
    s->samples = PyLong_AsLongLong(args[SAMPLES]);
    f->type = PyArray_TYPE(key) == NPY_FLOAT64 ? SH_FLOAT64 : SH_FLOAT32;
    f->map = (sh_feature_map)PyLong_AsLong(args[MAP]);
    f->size = PyLong_AsLongLong(args[SIZE]);
    s->faint = PyFloat_AsDouble(args[FAINTEST]);
    if (PyErr_Occurred() || as_doubles(args[BETA], "beta", s->heads, -1, 0, &beta) < 0) return -1;
    f->d = PyArray_DIM(key, PyArray_NDIM(key) - 1);
    f->v = PyArray_DIM(value, PyArray_NDIM(value) - 1);
    if (args[PROJECTION] != Py_None) {
        PyArrayObject *p = (PyArrayObject *)args[PROJECTION];
        if (!sh_is_in_place(args[PROJECTION], "projection")) return -1;
        if (PyArray_TYPE(p) != NPY_FLOAT64 || PyArray_NDIM(p) != 3 || !PyArray_IS_C_CONTIGUOUS(p) ||
            PyArray_DIM(p, 0) != s->heads || PyArray_DIM(p, 1) != f->size || PyArray_DIM(p, 2) != f->d)
            return wrong("projection");
        projection = PyArray_DATA(p);
    }
    s->beta = beta;
    f->projection = projection;
    s->stored = PyArray_DIM(key, PyArray_NDIM(key) - 3);
    s->queries = PyArray_DIM(query, PyArray_NDIM(query) - 3);
    const int listed = args[OFFSETS] != Py_None;
    if (sh_as_offsets(args[OFFSETS], s->samples, s->stored, &s->offsets) < 0 ||
        as_rows_of_sets(args[QUERY], "query", s, s->queries, f->d, listed && causal, 0, &s->query) < 0 ||
        as_rows_of_sets(args[KEY], "key", s, s->stored, f->d, listed, 0, &s->key) < 0 ||
        as_rows_of_sets(args[VALUE], "value", s, s->stored, f->v, listed, 0, &s->value) < 0)
        return -1;
    if (causal && s->queries != s->stored) return wrong("query");
    if (args[PADDING] == Py_None) return 0;
    PyArrayObject *p = (PyArrayObject *)args[PADDING];
    if (listed || !PyArray_Check(args[PADDING]) || PyArray_TYPE(p) != NPY_BOOL || PyArray_NDIM(p) != 2 ||
        !PyArray_IS_C_CONTIGUOUS(p) || PyArray_DIM(p, 0) != s->samples || PyArray_DIM(p, 1) != s->stored)
        return wrong("padding");
    s->padding = PyArray_DATA(p);
    return 0;
}

static int as_sums(PyObject *top, PyObject *total, PyObject *sum, const sh_feature_sets *s, int written,
                   sh_feature_state *state) {
    const int64_t rows = s->samples * s->heads, D = s->features.size;
    *state = (sh_feature_state){0};
    if (top && as_doubles(top, "top", rows, D, written, &state->top) < 0) return -1;
    if (as_doubles(total, "total", rows, D, written, &state->total) < 0) return -1;
    return as_doubles(sum, "sum", rows * D, s->features.v, written, &state->sum);
}

static int as_along(PyObject *object, const sh_feature_sets *s, double **along) {
    return as_doubles(object, "along", s->heads, -1, 1, along);
}

enum { SUM, MIX, CAUSAL, FEW, MIX_BACK, SUM_BACK, CAUSAL_BACK, FEW_BACK };

typedef struct {
    const sh_feature_state *state;
    sh_stack query, key, value;
    double *along, *keys;
} gradients;

static sh_status run(sh_context *context, int what, const sh_feature_sets *s, sh_feature_state state, sh_stack out,
                     const gradients *back) {
    switch (what) {
    case SUM: return sh_feature_sets_sum(context, s, state);
    case MIX: return sh_feature_sets_mix(context, s, state, out);
    case CAUSAL: return sh_feature_sets_causal(context, s, out);
    case FEW: return sh_feature_sets_few(context, s, out);
    case FEW_BACK: return sh_feature_sets_few_back(context, s, out, back->query, back->key, back->value, back->along);
    case MIX_BACK: return sh_feature_sets_mix_back(context, s, state, out, back->state, back->query, back->along);
    case SUM_BACK:
        return sh_feature_sets_sum_back(context, s, state, *back->state, back->keys, back->key, back->value,
                                        back->along);
    default: return sh_feature_sets_causal_back(context, s, out, back->query, back->key, back->value, back->along);
    }
}

static PyObject *of_sets(int what, PyObject *const *args, Py_ssize_t nargs) {
    static const int takes[] = {3, 4, 1, 1, 8, 9, 5, 5};
    const Py_ssize_t wanted = (Py_ssize_t)SETS + takes[what];
    if (nargs != wanted) return PyErr_Format(PyExc_TypeError, "takes %zd arguments, got %zd", wanted, nargs);
    const int causal = what == CAUSAL || what == CAUSAL_BACK;
    sh_feature_sets s;
    if (as_sets(args, causal, &s) < 0) return NULL;
    const int listed = s.offsets != NULL, sums = what == SUM || what == MIX || what == MIX_BACK || what == SUM_BACK;
    const int64_t d = s.features.d, v = s.features.v;
    sh_feature_state state = {0}, dstate = {0};
    sh_stack out = {0}, dquery = {0}, dkey = {0}, dvalue = {0};
    double *along = NULL, *dkeys = NULL;
    args += SETS;
    if (sums) {
        if (as_sums(args[0], args[1], args[2], &s, what == SUM, &state) < 0) return NULL;
        args += 3;
    }
    if (what != SUM && what != SUM_BACK) { /* out, or grad */
        const int written = what < MIX_BACK;
        if (as_rows_of_sets(args[0], written ? "out" : "grad", &s, s.queries, v, listed && causal, written, &out) < 0)
            return NULL;
        args++;
    }
    const int summed = what == SUM_BACK || (what == MIX_BACK && args[0] != Py_None);
    if (what == SUM_BACK || what == MIX_BACK) {
        if (summed && as_sums(NULL, args[0], args[1], &s, what == MIX_BACK, &dstate) < 0) return NULL;
        args += 2;
    }
    if (what == SUM_BACK) {
        if (args[0] != Py_None && as_doubles(args[0], "dkeys", s.samples * s.heads * s.features.size, d, 0, &dkeys) < 0)
            return NULL;
        args++;
    }
    if (what >= MIX_BACK && what != SUM_BACK) {
        if (as_rows_of_sets(args[0], "dquery", &s, s.queries, d, listed && causal, 1, &dquery) < 0) return NULL;
        args++;
    }
    if (what >= SUM_BACK) {
        if (as_rows_of_sets(args[0], "dkey", &s, s.stored, d, listed, 1, &dkey) < 0 ||
            as_rows_of_sets(args[1], "dvalue", &s, s.stored, v, listed, 1, &dvalue) < 0)
            return NULL;
        args += 2;
    }
    if (what >= MIX_BACK && as_along(args[0], &s, &along) < 0) return NULL;
    const gradients back = {summed ? &dstate : NULL, dquery, dkey, dvalue, along, dkeys};
    SH_RUN(call, status, run(SH_CALL(call), what, &s, state, out, &back))
    return finish(&call, status, &s.features, 0);
}

#define OF_SETS(name, what)                                                                                            \
    static PyObject *name(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {                                 \
        (void)module;                                                                                                  \
        return of_sets(what, args, nargs);                                                                             \
    }
OF_SETS(sets_sum, SUM)
OF_SETS(sets_mix, MIX)
OF_SETS(sets_causal, CAUSAL)
OF_SETS(sets_few, FEW)
OF_SETS(sets_few_back, FEW_BACK)
OF_SETS(sets_mix_back, MIX_BACK)
OF_SETS(sets_sum_back, SUM_BACK)
OF_SETS(sets_causal_back, CAUSAL_BACK)

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
    /* sets: map, size, beta, projection, faint, samples, query, key, value, offsets, padding; 0 is returned */
    {"feature_sets_sum", FAST(sets_sum), "feature_sets_sum(*sets, top, total, sum)"},
    {"feature_sets_mix", FAST(sets_mix), "feature_sets_mix(*sets, top, total, sum, out)"},
    {"feature_sets_causal", FAST(sets_causal), "feature_sets_causal(*sets, out)"},
    {"feature_sets_few", FAST(sets_few), "feature_sets_few(*sets, out)"},
    {"feature_sets_few_back", FAST(sets_few_back), "feature_sets_few_back(*sets, grad, dquery, dkey, dvalue, along)"},
    {"feature_sets_mix_back", FAST(sets_mix_back),
     "feature_sets_mix_back(*sets, top, total, sum, grad, dtotal, dsum, dquery, along); dtotal and dsum or None"},
    {"feature_sets_sum_back", FAST(sets_sum_back),
     "feature_sets_sum_back(*sets, top, total, sum, dtotal, dsum, dkeys, dkey, dvalue, along); dkeys or None"},
    {"feature_sets_causal_back", FAST(sets_causal_back),
     "feature_sets_causal_back(*sets, grad, dquery, dkey, dvalue, along)"},
    {NULL, NULL, 0, NULL},
};
