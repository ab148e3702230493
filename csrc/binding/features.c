/* features.c: the operations of features/, between Python's arrays and the core. */
#define _GNU_SOURCE
#include <time.h>
#include "binding/binding.h"
#include <string.h>

/* Takes a contiguous array of doubles, (rows, columns) or, with columns < 0, (rows); writeable where it is `written` to. */
static int as_doubles(PyObject *object, const char *name, int64_t rows, int64_t columns, int written, double **data) {
    PyArrayObject *a = (PyArrayObject *)object;
    const int axes = columns < 0 ? 1 : 2;
    if (!sh_is_in_place(object, name)) return -1;
    if (PyArray_TYPE(a) != NPY_FLOAT64 || PyArray_NDIM(a) != axes || !PyArray_IS_C_CONTIGUOUS(a) ||
        PyArray_DIM(a, 0) != rows || (axes == 2 && PyArray_DIM(a, 1) != columns))
        return sh_wrong_array(name);
    if (written && sh_may_write(object, name) < 0) return -1;
    *data = PyArray_DATA(a);
    return 0;
}

enum { MAP, SIZE, BETA, PROJECTION, BIAS, MODEL };

/* Takes map, size, beta, projection and bias, for rows of d numbers and outputs of v. */
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

/* Takes a writeable array (n, v) whose rows are contiguous. */
static int as_out(PyObject *object, int64_t n, const sh_features *f, void **data, int64_t *stride) {
    sh_rows rows;
    if (sh_as_rows(object, "out", &rows) < 0) return -1;
    const int64_t size = (int64_t)PyArray_ITEMSIZE((PyArrayObject *)object);
    if (sh_may_write(object, "out") < 0) return -1;
    if (rows.type != f->type || rows.n != n || rows.d != f->v || rows.stride < rows.d * size || rows.stride % size)
        return sh_wrong_array("out");
    *data = (void *)rows.data;
    *stride = rows.stride / size;
    return 0;
}

/* Returns the number of multiplications, or NULL with an exception. */
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

enum { COSINE, PATTERNS, VALUES, SCALE, CHECKED, STORED };
/* Takes cosine, patterns, values or None, scale and check_values. */
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
    if (sh_expect(nargs, ARGUMENTS) < 0) return NULL;
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
    const sh_rows *mixed = args[MODEL + VALUES] == Py_None ? NULL : &values;
    SH_RUN(call, status, sh_features_add(SH_CALL(call), &f, &patterns, mixed, s, &products))
    return finish(&call, status, &f, products);
}

static PyObject *mix(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    enum { STATE = MODEL, QUERIES = STATE + 3, OUT, ARGUMENTS };
    if (sh_expect(nargs, ARGUMENTS) < 0) return NULL;
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
    enum { QUERIES = (int)MODEL + (int)STORED, LEAST, OUT, ARGUMENTS };
    if (sh_expect(nargs, ARGUMENTS) < 0) return NULL;
    sh_features f;
    sh_rows queries, patterns, values;
    int cosine;
    void *data;
    int64_t v, stride, products = 0;
    const double least_normaliser = PyFloat_AsDouble(args[LEAST]);
    if (sh_as_rows(args[QUERIES], "queries", &queries) < 0 ||
        as_stored(args + MODEL, &patterns, &values, &cosine, &v) < 0 ||
        as_features(args, queries.d, v, queries.type, &f) < 0 || as_out(args[OUT], queries.n, &f, &data, &stride) < 0)
        return NULL;
    f.cosine = cosine;
    const sh_rows *mixed = args[MODEL + VALUES] == Py_None ? NULL : &values;
    SH_RUN(call, status,
           sh_features_causal(SH_CALL(call), &f, &queries, &patterns, mixed, least_normaliser, data, stride, &products))
    return finish(&call, status, &f, products);
}

/* --- samples and heads ---------------------------------------------------------------------------- */

enum { LEAST_OF_SETS = PROJECTION + 1, SAMPLES, QUERY, KEY, VALUE, OFFSETS, PADDING, SETS };

/* Takes an array of `rows` rows of `width` numbers for each set; samples and heads may share them where they are not written
 * to. listed: those of all samples are one list. */
static int as_rows_of_sets(PyObject *object, const char *name, const sh_feature_sets *s, int64_t rows, int64_t width,
                           int listed, int written, sh_stack *stack) {
    const int number = s->features.type == SH_FLOAT64 ? NPY_FLOAT64 : NPY_FLOAT32;
    int64_t shape[4];
    if (sh_as_stack(object, name, number, stack, shape) < 0) return -1;
    const int64_t samples = listed ? 1 : s->samples;
    const int every = PyArray_NDIM((PyArrayObject *)object) == 4;
    if (shape[1] != rows || shape[3] != width || (shape[2] != s->heads && (written || shape[2] != 1)) ||
        (shape[0] != samples && (written || every)) || (listed && every))
        return sh_wrong_array(name);
    return written ? sh_may_write(object, name) : 0;
}

/* Takes map, size, beta (H), projection (H, D, d), least_normaliser, samples, query, key, value, offsets and padding. The
 * queries of ragged bags are one list, as the rows are, where they are `is_causal`. */
static int as_sets(PyObject *const *args, int is_causal, sh_feature_sets *s) {
    *s = (sh_feature_sets){0};
    PyArrayObject *query = (PyArrayObject *)args[QUERY], *key = (PyArrayObject *)args[KEY],
                  *value = (PyArrayObject *)args[VALUE];
    for (int i = QUERY; i <= VALUE; i++)
        if (!PyArray_Check(args[i]) || PyArray_NDIM((PyArrayObject *)args[i]) < 3) return sh_wrong_array("rows");
    if (!PyArray_Check(args[BETA]) || PyArray_NDIM((PyArrayObject *)args[BETA]) != 1) return sh_wrong_array("beta");
    sh_features *f = &s->features;
    double *beta, *projection = NULL;
    s->heads = PyArray_DIM((PyArrayObject *)args[BETA], 0);
    s->samples = PyLong_AsLongLong(args[SAMPLES]);
    f->type = PyArray_TYPE(key) == NPY_FLOAT64 ? SH_FLOAT64 : SH_FLOAT32;
    f->map = (sh_feature_map)PyLong_AsLong(args[MAP]);
    f->size = PyLong_AsLongLong(args[SIZE]);
    s->least_normaliser = PyFloat_AsDouble(args[LEAST_OF_SETS]);
    if (PyErr_Occurred() || as_doubles(args[BETA], "beta", s->heads, -1, 0, &beta) < 0) return -1;
    f->d = PyArray_DIM(key, PyArray_NDIM(key) - 1);
    f->v = PyArray_DIM(value, PyArray_NDIM(value) - 1);
    if (args[PROJECTION] != Py_None) {
        PyArrayObject *p = (PyArrayObject *)args[PROJECTION];
        if (!sh_is_in_place(args[PROJECTION], "projection")) return -1;
        if (PyArray_TYPE(p) != NPY_FLOAT64 || PyArray_NDIM(p) != 3 || !PyArray_IS_C_CONTIGUOUS(p) ||
            PyArray_DIM(p, 0) != s->heads || PyArray_DIM(p, 1) != f->size || PyArray_DIM(p, 2) != f->d)
            return sh_wrong_array("projection");
        projection = PyArray_DATA(p);
    }
    s->beta = beta;
    f->projection = projection;
    s->stored = PyArray_DIM(key, PyArray_NDIM(key) - 3);
    s->queries = PyArray_DIM(query, PyArray_NDIM(query) - 3);
    const int listed = args[OFFSETS] != Py_None;
    if (sh_as_offsets(args[OFFSETS], s->samples, s->stored, &s->offsets) < 0 ||
        as_rows_of_sets(args[QUERY], "query", s, s->queries, f->d, listed && is_causal, 0, &s->query) < 0 ||
        as_rows_of_sets(args[KEY], "key", s, s->stored, f->d, listed, 0, &s->key) < 0 ||
        as_rows_of_sets(args[VALUE], "value", s, s->stored, f->v, listed, 0, &s->value) < 0)
        return -1;
    if (is_causal && s->queries != s->stored) return sh_wrong_array("query");
    if (args[PADDING] == Py_None) return 0;
    PyArrayObject *p = (PyArrayObject *)args[PADDING];
    if (listed || !PyArray_Check(args[PADDING]) || PyArray_TYPE(p) != NPY_BOOL || PyArray_NDIM(p) != 2 ||
        !PyArray_IS_C_CONTIGUOUS(p) || PyArray_DIM(p, 0) != s->samples || PyArray_DIM(p, 1) != s->stored)
        return sh_wrong_array("padding");
    s->padding = PyArray_DATA(p);
    return 0;
}

/* Takes a state of every set; top may be left out (NULL). */
static int as_sums(PyObject *top, PyObject *total, PyObject *sum, const sh_feature_sets *s, int written,
                   sh_feature_state *state) {
    const int64_t rows = s->samples * s->heads, D = s->features.size;
    *state = (sh_feature_state){0};
    if (top && as_doubles(top, "top", rows, D, written, &state->top) < 0) return -1;
    if (as_doubles(total, "total", rows, D, written, &state->total) < 0) return -1;
    return as_doubles(sum, "sum", rows * D, s->features.v, written, &state->sum);
}

/* The operations over sets, in the order of OPERATIONS below. */
enum { SUM, MIX, CAUSAL, PAIRS, MIX_BACKWARD, SUM_BACKWARD, CAUSAL_BACKWARD, PAIRS_BACKWARD };

/* The arguments of an operation besides sets; zeros where it takes none. */
typedef struct {
    sh_feature_state state, dstate;
    const sh_feature_state *dsums; /* dstate, or NULL: gradients by sums are not wanted */
    sh_stack out, dquery, dkey, dvalue;
    double *grad_dot, *dkeys;
} set_arrays;

static sh_status run(sh_context *context, int operation, const sh_feature_sets *s, const set_arrays *a) {
    switch (operation) {
    case SUM: return sh_feature_sets_sum(context, s, a->state);
    case MIX: return sh_feature_sets_mix(context, s, a->state, a->out);
    case CAUSAL: return sh_feature_sets_causal(context, s, a->out);
    case PAIRS: return sh_feature_sets_pairs(context, s, a->out);
    case MIX_BACKWARD:
        return sh_feature_sets_mix_backward(context, s, a->state, a->out, a->dsums, a->dquery, a->grad_dot);
    case SUM_BACKWARD:
        return sh_feature_sets_sum_backward(context, s, a->state, a->dstate, a->dkeys, a->dkey, a->dvalue, a->grad_dot);
    case CAUSAL_BACKWARD:
        return sh_feature_sets_causal_backward(context, s, a->out, a->dquery, a->dkey, a->dvalue, a->grad_dot);
    default: return sh_feature_sets_pairs_backward(context, s, a->out, a->dquery, a->dkey, a->dvalue, a->grad_dot);
    }
}

static PyObject *over_sets(int operation, PyObject *const *args, Py_ssize_t nargs) {
    static const int takes[] = {3, 4, 1, 1, 8, 9, 5, 5};
    if (sh_expect(nargs, (Py_ssize_t)SETS + takes[operation]) < 0) return NULL;
    const int is_causal = operation == CAUSAL || operation == CAUSAL_BACKWARD, backward = operation >= MIX_BACKWARD,
              by_sums = operation == SUM || operation == MIX || operation == MIX_BACKWARD || operation == SUM_BACKWARD;
    sh_feature_sets s;
    set_arrays a = {0};
    if (as_sets(args, is_causal, &s) < 0) return NULL;
    const int listed = s.offsets != NULL, listed_queries = listed && is_causal;
    const int64_t d = s.features.d, v = s.features.v;
    args += SETS;
    if (by_sums) {
        if (as_sums(args[0], args[1], args[2], &s, operation == SUM, &a.state) < 0) return NULL;
        args += 3;
    }
    if (operation != SUM && operation != SUM_BACKWARD &&
        as_rows_of_sets(*args++, backward ? "grad" : "out", &s, s.queries, v, listed_queries, !backward, &a.out) < 0)
        return NULL;
    if (by_sums && backward) {
        if (operation == SUM_BACKWARD || args[0] != Py_None) {
            if (as_sums(NULL, args[0], args[1], &s, operation == MIX_BACKWARD, &a.dstate) < 0) return NULL;
            a.dsums = &a.dstate;
        }
        args += 2;
    }
    if (operation == SUM_BACKWARD) {
        PyObject *dkeys = *args++;
        if (dkeys != Py_None && as_doubles(dkeys, "dkeys", s.samples * s.heads * s.features.size, d, 0, &a.dkeys) < 0)
            return NULL;
    } else if (backward && as_rows_of_sets(*args++, "dquery", &s, s.queries, d, listed_queries, 1, &a.dquery) < 0) {
        return NULL;
    }
    if (operation >= SUM_BACKWARD) {
        if (as_rows_of_sets(args[0], "dkey", &s, s.stored, d, listed, 1, &a.dkey) < 0 ||
            as_rows_of_sets(args[1], "dvalue", &s, s.stored, v, listed, 1, &a.dvalue) < 0)
            return NULL;
        args += 2;
    }
    if (backward && as_doubles(args[0], "grad_dot", s.heads, -1, 1, &a.grad_dot) < 0) return NULL;
    SH_RUN(call, status, run(SH_CALL(call), operation, &s, &a))
    return finish(&call, status, &s.features, 0);
}

#define OVER_SETS(name, operation)                                                                                     \
    static PyObject *name(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {                                 \
        (void)module;                                                                                                  \
        return over_sets(operation, args, nargs);                                                                      \
    }
OVER_SETS(sets_sum, SUM)
OVER_SETS(sets_mix, MIX)
OVER_SETS(sets_causal, CAUSAL)
OVER_SETS(sets_pairs, PAIRS)
OVER_SETS(sets_mix_backward, MIX_BACKWARD)
OVER_SETS(sets_sum_backward, SUM_BACKWARD)
OVER_SETS(sets_causal_backward, CAUSAL_BACKWARD)
OVER_SETS(sets_pairs_backward, PAIRS_BACKWARD)

#define FAST(f) (PyCFunction)(void (*)(void)) f, METH_FASTCALL
PyMethodDef sh_feature_operations[] = {
    {"features_add", FAST(add),
     "features_add(map, size, beta, projection, bias, cosine, patterns, values, scale, check_values, dtype, top, "
     "total, sum) -> multiplications; the state in place"},
    {"features_mix", FAST(mix),
     "features_mix(map, size, beta, projection, bias, top, total, sum, queries, out) -> multiplications"},
    {"features_causal", FAST(causal),
     "features_causal(map, size, beta, projection, bias, cosine, patterns, values, scale, check_values, queries, "
     "least_normaliser, out) -> multiplications"},
    /* sets: map, size, beta, projection, least_normaliser, samples, query, key, value, offsets, padding; 0 is returned */
    {"feature_sets_sum", FAST(sets_sum), "feature_sets_sum(*sets, top, total, sum)"},
    {"feature_sets_mix", FAST(sets_mix), "feature_sets_mix(*sets, top, total, sum, out)"},
    {"feature_sets_causal", FAST(sets_causal), "feature_sets_causal(*sets, out)"},
    {"feature_sets_pairs", FAST(sets_pairs), "feature_sets_pairs(*sets, out)"},
    {"feature_sets_pairs_backward", FAST(sets_pairs_backward),
     "feature_sets_pairs_backward(*sets, grad, dquery, dkey, dvalue, grad_dot)"},
    {"feature_sets_mix_backward", FAST(sets_mix_backward),
     "feature_sets_mix_backward(*sets, top, total, sum, grad, dtotal, dsum, dquery, grad_dot); dtotal and dsum or "
     "None"},
    {"feature_sets_sum_backward", FAST(sets_sum_backward),
     "feature_sets_sum_backward(*sets, top, total, sum, dtotal, dsum, dkeys, dkey, dvalue, grad_dot); dkeys or None"},
    {"feature_sets_causal_backward", FAST(sets_causal_backward),
     "feature_sets_causal_backward(*sets, grad, dquery, dkey, dvalue, grad_dot)"},
    {NULL, NULL, 0, NULL},
};
