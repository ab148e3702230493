/* layers.c: the association of the layers, linear maps, normalisation and AdamW on Python's arrays (association/).
 *
 * A tape is a capsule. It keeps the arrays alive that it was made from, as views whose shapes nobody else can
 * change. */
#define _GNU_SOURCE
#include <time.h>
#include "binding/binding.h"
#include <stdlib.h>
#include <string.h>

static const char TAPE[] = "sparsehopfield._core.tape";

/* A tape, with the arrays that it reads: the content of a capsule. */
typedef struct {
    sh_tape *tape;
    PyObject *arrays; /* the tuple of arguments, arrays as views */
    sh_association a;
    sh_structure structure;
    double beta[]; /* (H) */
} saved_tape;

/* Frees a capsule's tape, and lets its arrays go. */
static void release_tape(PyObject *capsule) {
    saved_tape *s = PyCapsule_GetPointer(capsule, TAPE);
    sh_call call = sh_begin_call(1);
    sh_tape_free(SH_CALL(call), s->tape);
    Py_XDECREF(s->arrays);
    free(s);
}

/* Returns an object as an array of a type (number: NumPy's) with a contiguous last axis and strides of whole numbers
 * that are not negative; NULL with an exception otherwise. */
static PyArrayObject *as_array(PyObject *object, const char *name, int number) {
    PyArrayObject *a = (PyArrayObject *)object;
    if (!sh_is_in_place(object, name)) return NULL;
    const int has_type = PyArray_TYPE(a) == number, last = PyArray_NDIM(a) - 1;
    if (has_type && last >= 0 && PyArray_SIZE(a) == 0) return a;
    if (!has_type || last < 0 || (PyArray_DIM(a, last) > 1 && PyArray_STRIDE(a, last) != PyArray_ITEMSIZE(a))) {
        sh_wrong_array(name);
        return NULL;
    }
    for (int i = 0; i < last; i++)
        if (PyArray_STRIDE(a, i) < 0 || PyArray_STRIDE(a, i) % PyArray_ITEMSIZE(a)) {
            sh_wrong_array(name);
            return NULL;
        }
    return a;
}

/* Returns the stride of an axis in numbers, 0 where it has at most one entry. */
static int64_t stride_of(PyArrayObject *a, int axis) {
    return PyArray_DIM(a, axis) > 1 ? PyArray_STRIDE(a, axis) / PyArray_ITEMSIZE(a) : 0;
}

int sh_as_stack(PyObject *object, const char *name, int number, sh_stack *stack, int64_t shape[4]) {
    PyArrayObject *a = as_array(object, name, number);
    if (!a) return -1;
    const int n = PyArray_NDIM(a);
    if (n != 3 && n != 4) return sh_wrong_array(name);
    shape[0] = n == 4 ? PyArray_DIM(a, 0) : 1;
    for (int i = 1; i < 4; i++) shape[i] = PyArray_DIM(a, n - 4 + i);
    *stack = (sh_stack){PyArray_DATA(a), n == 4 ? stride_of(a, 0) : 0, PyArray_STRIDE(a, n - 3) / PyArray_ITEMSIZE(a),
                        stride_of(a, n - 2)};
    if (shape[1] <= 1) stack->row = shape[2] * shape[3];
    return 0;
}

/* Reads a projection: weight (H, to, from) and bias (H, to), contiguous, or None. */
static int as_projection(PyObject *weight, PyObject *bias, const char *name, int number, int64_t heads, int64_t from,
                         int64_t *to, sh_projection *projection) {
    *projection = (sh_projection){NULL, NULL, from};
    if (weight == Py_None) return 0;
    PyArrayObject *w = as_array(weight, name, number), *b = w ? as_array(bias, name, number) : NULL;
    if (!w || !b) return -1;
    if (PyArray_NDIM(w) != 3 || PyArray_NDIM(b) != 2 || !PyArray_IS_C_CONTIGUOUS(w) || !PyArray_IS_C_CONTIGUOUS(b) ||
        PyArray_DIM(w, 0) != heads || PyArray_DIM(w, 2) != from || PyArray_DIM(b, 0) != heads ||
        PyArray_DIM(b, 1) != PyArray_DIM(w, 1))
        return sh_wrong_array(name);
    *projection = (sh_projection){PyArray_DATA(w), PyArray_DATA(b), from};
    *to = PyArray_DIM(w, 1);
    return 0;
}

int sh_as_offsets(PyObject *object, int64_t samples, int64_t rows, const int64_t **offsets) {
    if (object == Py_None) return 0;
    PyArrayObject *a = as_array(object, "offsets", NPY_INT64);
    if (!a) return -1;
    if (PyArray_NDIM(a) != 1 || PyArray_DIM(a, 0) != samples + 1) return sh_wrong_array("offsets");
    const int64_t *o = PyArray_DATA(a);
    int valid = o[0] == 0 && o[samples] == rows;
    for (int64_t b = 0; valid && b < samples; b++) valid = o[b] <= o[b + 1];
    if (!valid) {
        PyErr_SetString(PyExc_ValueError, "offsets: must ascend from 0 to the number of rows");
        return -1;
    }
    *offsets = o;
    return 0;
}

/* Reads padding (B, M) and mask (B, H, N, M), or None, after the rest of the association. */
static int as_masks(PyObject *padding, PyObject *mask, int number, sh_association *a) {
    if (padding != Py_None) {
        PyArrayObject *p = as_array(padding, "padding_mask", NPY_BOOL);
        if (!p) return -1;
        if (PyArray_NDIM(p) != 2 || !PyArray_IS_C_CONTIGUOUS(p) || PyArray_DIM(p, 0) != a->samples ||
            PyArray_DIM(p, 1) != a->stored)
            return sh_wrong_array("padding_mask");
        a->padding = PyArray_DATA(p);
    }
    if (mask == Py_None) return 0;
    a->mask_is_bool = PyArray_Check(mask) && PyArray_TYPE((PyArrayObject *)mask) == NPY_BOOL;
    PyArrayObject *m = as_array(mask, "mask", a->mask_is_bool ? NPY_BOOL : number);
    if (!m) return -1;
    int64_t rows = a->offsets ? 0 : a->stored;
    for (int64_t b = 0; a->offsets && b < a->samples; b++)
        if (a->offsets[b + 1] - a->offsets[b] > rows) rows = a->offsets[b + 1] - a->offsets[b];
    const int64_t shape[4] = {a->samples, a->heads, a->queries, rows};
    if (PyArray_NDIM(m) != 4) return sh_wrong_array("mask");
    for (int i = 0; i < 4; i++)
        if (PyArray_DIM(m, i) != shape[i]) return sh_wrong_array("mask");
    a->mask = PyArray_DATA(m);
    a->mask_sample = stride_of(m, 0);
    a->mask_head = stride_of(m, 1);
    a->mask_query = stride_of(m, 2);
    return 0;
}

/* Raises TypeError in a function that is not called with `count` arguments. */
#define TAKES(count)                                                                                                   \
    (void)module;                                                                                                      \
    if (sh_expect(nargs, count) < 0) return NULL;

/* The arguments of associate_forward. */
enum {
    QUERIES,
    STORED,
    VALUES,
    BETA,
    SEPARATION,
    PARAMETER,
    SAMPLES,
    OFFSETS,
    PADDING,
    MASK,
    STEPS,
    EPS,
    DROPOUT,
    SEED,
    IMPLICIT,
    KEY_WEIGHT,
    KEY_BIAS,
    VALUE_WEIGHT,
    VALUE_BIAS,
    STRUCTURE,
    APPENDED,
    KEEP,
    ARGUMENTS
};

/* Reads all arguments but beta's numbers and the structure. */
static int as_association(PyObject *const *args, sh_association *a) {
    const int number = PyArray_Check(args[QUERIES]) ? PyArray_TYPE((PyArrayObject *)args[QUERIES]) : -1;
    int64_t q[4], k[4], v[4];
    if (number != NPY_FLOAT32 && number != NPY_FLOAT64) return sh_wrong_array("queries");
    a->type = number == NPY_FLOAT64 ? SH_FLOAT64 : SH_FLOAT32;
    if (sh_as_stack(args[QUERIES], "queries", number, &a->query, q) < 0 ||
        sh_as_stack(args[STORED], "stored", number, &a->key, k) < 0 ||
        sh_as_stack(args[VALUES], "values", number, &a->value, v) < 0)
        return -1;
    a->samples = PyLong_AsLongLong(args[SAMPLES]);
    a->queries = q[1];
    a->heads = q[2];
    a->stored = k[1];
    a->d = q[3];
    a->v = v[3];
    a->model.separation = (sh_separation)PyLong_AsLong(args[SEPARATION]);
    a->model.parameter = PyFloat_AsDouble(args[PARAMETER]);
    a->steps = PyLong_AsLongLong(args[STEPS]);
    a->eps = PyFloat_AsDouble(args[EPS]);
    a->dropout = PyFloat_AsDouble(args[DROPOUT]);
    a->seed = PyLong_AsUnsignedLongLong(args[SEED]);
    a->implicit = PyObject_IsTrue(args[IMPLICIT]);
    a->appended = PyLong_AsLongLong(args[APPENDED]);
    if (PyErr_Occurred()) return -1;
    const struct {
        const char *name;
        int64_t n;
    } counts[] = {{"samples", a->samples}, {"queries", a->queries}, {"stored rows", a->stored},
                  {"heads", a->heads},     {"features", a->d},      {"features of a value", a->v}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].n > INT32_MAX / 2) {
            PyErr_Format(PyExc_OverflowError, "x: a layer takes at most %ld %s, got %lld", (long)(INT32_MAX / 2),
                         counts[i].name, (long long)counts[i].n);
            return -1;
        }
    const int ragged = args[OFFSETS] != Py_None;
    const int64_t stored_samples = ragged ? 1 : k[0];
    if ((q[0] != a->samples && q[0] != 1) || (stored_samples != a->samples && stored_samples != 1) || v[0] != k[0] ||
        v[1] != k[1] || (k[2] != a->heads && k[2] != 1) || v[2] != k[2] ||
        (ragged && (a->key.sample || a->value.sample)))
        return sh_wrong_array("stored");
    if (as_projection(args[KEY_WEIGHT], args[KEY_BIAS], "key_projection", number, a->heads, k[3], &a->d, &a->key_map) <
            0 ||
        as_projection(args[VALUE_WEIGHT], args[VALUE_BIAS], "value_projection", number, a->heads, v[3], &a->v,
                      &a->value_map) < 0)
        return -1;
    if (a->d != q[3] || (!a->key_map.weight && k[3] != q[3])) return sh_wrong_array("queries");
    if (sh_as_offsets(args[OFFSETS], a->samples, k[1], &a->offsets) < 0) return -1;
    if (as_masks(args[PADDING], args[MASK], number, a) < 0) return -1;
    PyArrayObject *beta = as_array(args[BETA], "beta", NPY_FLOAT64);
    if (!beta || PyArray_NDIM(beta) != 1 || PyArray_DIM(beta, 0) != a->heads) return sh_wrong_array("beta");
    return 0;
}

static PyObject *forward(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    TAKES(ARGUMENTS)
    sh_association a = {0};
    if (as_association(args, &a) < 0) return NULL;
    saved_tape *s = calloc(1, sizeof *s + (size_t)a.heads * sizeof(double));
    PyObject *capsule = s ? PyCapsule_New(s, TAPE, release_tape) : PyErr_NoMemory(), *out = NULL, *result = NULL;
    if (!capsule) {
        free(s);
        return NULL;
    }
    memcpy(s->beta, PyArray_DATA((PyArrayObject *)args[BETA]), (size_t)a.heads * sizeof(double));
    a.beta = s->beta;
    if (sh_as_structure(args[STRUCTURE], a.queries, &s->structure, &a.structure) < 0) goto end;
    s->a = a;
    npy_intp shape[4] = {(npy_intp)a.samples, (npy_intp)a.queries, (npy_intp)a.heads, (npy_intp)a.v};
    out = PyArray_SimpleNew(4, shape, a.type == SH_FLOAT64 ? NPY_FLOAT64 : NPY_FLOAT32);
    if (!out || !(s->arrays = PyTuple_New(nargs))) goto end;
    for (Py_ssize_t i = 0; i < nargs; i++) {
        PyObject *view =
            PyArray_Check(args[i]) ? PyArray_View((PyArrayObject *)args[i], NULL, NULL) : Py_NewRef(args[i]);
        if (!view || PyTuple_SetItem(s->arrays, i, view) < 0) goto end;
    }
    int64_t unconverged = 0;
    const int keep = PyObject_IsTrue(args[KEEP]);
    void *data = PyArray_DATA((PyArrayObject *)out);
    SH_RUN(call, status, sh_association_forward(SH_CALL(call), &s->a, data, keep ? &s->tape : NULL, &unconverged))
    if (status == SH_OK)
        result = Py_BuildValue("OOL", out, keep ? capsule : Py_None, (long long)unconverged);
    else
        sh_raise(&call, status, a.type);
end:
    Py_XDECREF(out);
    Py_DECREF(capsule);
    return result;
}

/* Returns the numbers from row to row of an array that can be written to, of this shape, its heads side by side and all
 * rows equally far apart; -1 with an exception otherwise. */
static int64_t row_stride_of(PyObject *object, int number, int ndim, const npy_intp *shape) {
    PyArrayObject *a = as_array(object, "out", number);
    if (!a) return -1;
    if (sh_may_write(object, "out") < 0) return -1;
    int valid = PyArray_NDIM(a) == ndim;
    for (int i = 0; valid && i < ndim; i++) valid = PyArray_DIM(a, i) == shape[i];
    if (!valid) return sh_wrong_array("out");
    if (PyArray_SIZE(a) == 0) return 0;
    const int64_t width = PyArray_DIM(a, ndim - 1), row = PyArray_STRIDE(a, ndim - 3) / PyArray_ITEMSIZE(a);
    const int64_t rows = PyArray_DIM(a, ndim - 3), heads = PyArray_DIM(a, ndim - 2);
    if (heads > 1 && stride_of(a, ndim - 2) != width) return sh_wrong_array("out");
    if (rows > 1 && row < heads * width) return sh_wrong_array("out"); /* rows would overlap */
    if (ndim == 3 || PyArray_DIM(a, 0) == 1) return row;
    const int64_t sample = PyArray_STRIDE(a, 0) / PyArray_ITEMSIZE(a);
    if (rows == 1) return sample >= heads * width ? sample : sh_wrong_array("out");
    return sample == rows * row ? row : sh_wrong_array("out");
}

/* Takes a tape, grad, whether gradients of rows and of beta are wanted, and where to put those of queries, stored and
 * values, or None. Returns these three, that of beta, and those of the projections' weights and biases. */
static PyObject *backward(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    TAKES(7)
    saved_tape *s = PyCapsule_GetPointer(args[0], TAPE);
    if (!s) return NULL;
    const sh_association *a = &s->a;
    const int number = a->type == SH_FLOAT64 ? NPY_FLOAT64 : NPY_FLOAT32, rows = PyObject_IsTrue(args[2]);
    const int beta = PyObject_IsTrue(args[3]);
    PyArrayObject *grad = as_array(args[1], "grad", number);
    const int64_t shape[4] = {a->samples, a->queries, a->heads, a->v};
    if (!grad || PyArray_NDIM(grad) != 4 || !PyArray_IS_C_CONTIGUOUS(grad)) return sh_wrong_array("grad"), NULL;
    for (int i = 0; i < 4; i++)
        if (PyArray_DIM(grad, i) != shape[i]) return sh_wrong_array("grad"), NULL;
    npy_intp query[4] = {(npy_intp)a->samples, (npy_intp)a->queries, (npy_intp)a->heads, (npy_intp)a->d};
    PyObject *result = PyTuple_New(8);
    void *data[8] = {0};
    int64_t row[3] = {0};
    static const int shaped_as[8] = {-1, STORED, VALUES, -1, KEY_WEIGHT, KEY_BIAS, VALUE_WEIGHT, VALUE_BIAS};
    for (int i = 0; result && i < 8; i++) {
        PyObject *argument = shaped_as[i] < 0 ? NULL : PyTuple_GetItem(s->arrays, shaped_as[i]), *gradient = NULL;
        if (i < 3 && (i == 0 || rows)) {
            const int ndim = i ? PyArray_NDIM((PyArrayObject *)argument) : 4;
            const npy_intp *shape_of = i ? PyArray_DIMS((PyArrayObject *)argument) : query;
            row[i] = shape_of[ndim - 2] * shape_of[ndim - 1];
            if (args[4 + i] == Py_None)
                gradient = PyArray_SimpleNew(ndim, shape_of, number);
            else if ((row[i] = row_stride_of(args[4 + i], number, ndim, shape_of)) >= 0)
                gradient = Py_NewRef(args[4 + i]);
        } else if (i == 3 && beta)
            gradient = PyArray_SimpleNew(3, query, NPY_FLOAT64);
        else if (i <= 3 || argument == Py_None)
            gradient = Py_NewRef(Py_None);
        else
            gradient = PyArray_NewLikeArray((PyArrayObject *)argument, NPY_CORDER, NULL, 0);
        if (gradient && gradient != Py_None) data[i] = PyArray_DATA((PyArrayObject *)gradient);
        if (!gradient || PyTuple_SetItem(result, i, gradient) < 0) Py_CLEAR(result);
    }
    if (!result) return NULL;
    const sh_gradients gradients = {data[0], data[1], data[2], row[0],  row[1], row[2],
                                    data[3], data[4], data[5], data[6], data[7]};
    SH_RUN(call, status, sh_association_backward(SH_CALL(call), s->tape, PyArray_DATA(grad), &gradients))
    if (status == SH_OK) return result;
    Py_DECREF(result);
    return sh_raise(&call, status, a->type);
}

/* Returns a new array of n numbers. */
static PyObject *new_array(int number, const void *data, int64_t n) {
    npy_intp shape[1] = {(npy_intp)n};
    PyObject *array = PyArray_SimpleNew(1, shape, number);
    if (array && n)
        memcpy(PyArray_DATA((PyArrayObject *)array), data,
               (size_t)n * (size_t)PyArray_ITEMSIZE((PyArrayObject *)array));
    return array;
}

static PyObject *weights(PyObject *module, PyObject *capsule) {
    (void)module;
    saved_tape *s = PyCapsule_GetPointer(capsule, TAPE);
    if (!s) return NULL;
    sh_entries entries;
    SH_RUN(call, status, sh_association_weights(SH_CALL(call), s->tape, &entries))
    if (status != SH_OK) return sh_raise(&call, status, s->a.type);
    const int64_t n = entries.start[entries.n];
    PyObject *parts[3] = {new_array(NPY_INT64, entries.start, entries.n + 1), new_array(NPY_INT64, entries.position, n),
                          new_array(NPY_FLOAT64, entries.weight, n)};
    sh_entries_free(SH_CALL(call), &entries);
    PyObject *result = parts[0] && parts[1] && parts[2] ? PyTuple_Pack(3, parts[0], parts[1], parts[2]) : NULL;
    for (int i = 0; i < 3; i++) Py_XDECREF(parts[i]);
    return result;
}

/* Returns the updates made of every query, (B, N, H). */
static PyObject *steps(PyObject *module, PyObject *capsule) {
    (void)module;
    saved_tape *s = PyCapsule_GetPointer(capsule, TAPE);
    if (!s) return NULL;
    npy_intp shape[3] = {(npy_intp)s->a.samples, (npy_intp)s->a.queries, (npy_intp)s->a.heads};
    PyObject *array = PyArray_SimpleNew(3, shape, NPY_INT64);
    if (array) sh_association_steps(s->tape, PyArray_DATA((PyArrayObject *)array));
    return array;
}

/* --- linear maps, layer normalisation, AdamW ------------------------------------------------------ */

/* Reads a contiguous array of `count` numbers, -1: any. `number` is its type, or becomes it where that is -1. None is
 * NULL where it is optional. */
static int as_numbers(PyObject *object, const char *name, int *number, int64_t count, int optional, void **data) {
    *data = NULL;
    if (optional && object == Py_None) return 0;
    PyArrayObject *a = (PyArrayObject *)object;
    if (!sh_is_in_place(object, name)) return -1;
    if (!PyArray_IS_C_CONTIGUOUS(a)) return sh_wrong_array(name);
    if (*number < 0) *number = PyArray_TYPE(a);
    if ((*number != NPY_FLOAT32 && *number != NPY_FLOAT64) || PyArray_TYPE(a) != *number ||
        (count >= 0 && PyArray_SIZE(a) != count))
        return sh_wrong_array(name);
    *data = PyArray_DATA(a);
    return 0;
}

/* Reads the same, to be written to. */
static int as_output(PyObject *object, const char *name, int *number, int64_t count, int optional, void **data) {
    if (as_numbers(object, name, number, count, optional, data) < 0) return -1;
    return *data ? sh_may_write(object, name) : 0;
}

/* Reads a matrix with at least one column. */
static int as_matrix(PyObject *object, const char *name, int *number, void **data, int64_t *rows, int64_t *columns) {
    if (as_numbers(object, name, number, -1, 0, data) < 0) return -1;
    PyArrayObject *a = (PyArrayObject *)object;
    if (PyArray_NDIM(a) != 2 || PyArray_DIM(a, 1) < 1) return sh_wrong_array(name);
    *rows = PyArray_DIM(a, 0);
    *columns = PyArray_DIM(a, 1);
    return 0;
}

static sh_type type_of(int number) { return number == NPY_FLOAT64 ? SH_FLOAT64 : SH_FLOAT32; }

#define RETURN(EXPRESSION)                                                                                             \
    SH_RUN(call, status, EXPRESSION)                                                                                   \
    return status == SH_OK ? Py_NewRef(Py_None) : sh_raise(&call, status, type_of(number));

static PyObject *linear(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    int number = -1;
    int64_t n, e, o, same;
    void *x, *weight, *bias, *y;
    TAKES(4)
    if (as_matrix(args[0], "x", &number, &x, &n, &e) < 0 ||
        as_matrix(args[1], "weight", &number, &weight, &o, &same) < 0 ||
        as_numbers(args[2], "bias", &number, o, 1, &bias) < 0 || as_output(args[3], "y", &number, n * o, 0, &y) < 0)
        return NULL;
    if (same != e) return sh_wrong_array("weight"), NULL;
    RETURN(sh_linear(SH_CALL(call), type_of(number), n, e, o, x, weight, bias, y))
}

static PyObject *linear_backward(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    int number = -1;
    int64_t n, e, o, same;
    void *x, *weight, *grad, *dx, *dweight, *dbias;
    TAKES(6)
    if (as_matrix(args[0], "x", &number, &x, &n, &e) < 0 ||
        as_matrix(args[1], "weight", &number, &weight, &o, &same) < 0 ||
        as_numbers(args[2], "grad", &number, n * o, 0, &grad) < 0 ||
        as_output(args[3], "dx", &number, n * e, 1, &dx) < 0 ||
        as_output(args[4], "dweight", &number, o * e, 1, &dweight) < 0 ||
        as_output(args[5], "dbias", &number, o, 1, &dbias) < 0)
        return NULL;
    if (same != e) return sh_wrong_array("weight"), NULL;
    RETURN(sh_linear_backward(SH_CALL(call), type_of(number), n, e, o, x, weight, grad, dx, dweight, dbias))
}

static PyObject *normalize(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    int number = -1;
    int64_t n, e;
    void *x, *xhat, *rstd;
    TAKES(4)
    const double eps = PyFloat_AsDouble(args[1]);
    if (PyErr_Occurred() || as_matrix(args[0], "x", &number, &x, &n, &e) < 0 ||
        as_output(args[2], "xhat", &number, n * e, 0, &xhat) < 0 ||
        as_output(args[3], "rstd", &number, n, 0, &rstd) < 0)
        return NULL;
    RETURN(sh_normalize(SH_CALL(call), type_of(number), n, e, eps, x, xhat, rstd))
}

static PyObject *normalize_backward(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    int number = -1;
    int64_t n, e;
    void *xhat, *rstd, *grad, *dx;
    TAKES(4)
    if (as_matrix(args[0], "xhat", &number, &xhat, &n, &e) < 0 ||
        as_numbers(args[1], "rstd", &number, n, 0, &rstd) < 0 ||
        as_numbers(args[2], "grad", &number, n * e, 0, &grad) < 0 ||
        as_output(args[3], "dx", &number, n * e, 0, &dx) < 0)
        return NULL;
    RETURN(sh_normalize_backward(SH_CALL(call), type_of(number), n, e, xhat, rstd, grad, dx))
}

static PyObject *fold(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    int number = -1;
    int64_t e, o;
    void *weight, *bias, *gain, *shift, *folded, *moved;
    TAKES(6)
    if (as_matrix(args[0], "weight", &number, &weight, &o, &e) < 0 ||
        as_numbers(args[1], "bias", &number, o, 1, &bias) < 0 ||
        as_numbers(args[2], "gain", &number, e, 0, &gain) < 0 ||
        as_numbers(args[3], "shift", &number, e, 0, &shift) < 0 ||
        as_output(args[4], "folded", &number, o * e, 0, &folded) < 0 ||
        as_output(args[5], "moved", &number, o, 0, &moved) < 0)
        return NULL;
    RETURN(sh_fold(SH_CALL(call), type_of(number), e, o, weight, bias, gain, shift, folded, moved))
}

static PyObject *unfold(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    int number = -1;
    int64_t e, o;
    void *dfolded, *dmoved, *weight, *gain, *shift, *dweight, *dgain, *dshift;
    TAKES(8)
    if (as_matrix(args[0], "dfolded", &number, &dfolded, &o, &e) < 0 ||
        as_numbers(args[1], "dmoved", &number, o, 0, &dmoved) < 0 ||
        as_numbers(args[2], "weight", &number, o * e, 0, &weight) < 0 ||
        as_numbers(args[3], "gain", &number, e, 0, &gain) < 0 ||
        as_numbers(args[4], "shift", &number, e, 0, &shift) < 0 ||
        as_output(args[5], "dweight", &number, o * e, 0, &dweight) < 0 ||
        as_output(args[6], "dgain", &number, e, 0, &dgain) < 0 ||
        as_output(args[7], "dshift", &number, e, 0, &dshift) < 0)
        return NULL;
    RETURN(
        sh_unfold(SH_CALL(call), type_of(number), e, o, dfolded, dmoved, weight, gain, shift, dweight, dgain, dshift))
}

/* Tells whether adamw takes a parameter and its gradient as they are: of the same dtype and shape, contiguous, aligned,
 * and without shared memory; the parameter can be written to. */
static int is_pair(PyObject *parameter, PyObject *grad) {
    if (!PyArray_Check(parameter) || !PyArray_CheckExact(grad)) return 0;
    PyArrayObject *p = (PyArrayObject *)parameter, *g = (PyArrayObject *)grad;
    if (PyArray_TYPE(p) != PyArray_TYPE(g) || (PyArray_TYPE(p) != NPY_FLOAT32 && PyArray_TYPE(p) != NPY_FLOAT64) ||
        !PyArray_ISCARRAY(p) || !PyArray_ISCARRAY_RO(g) || !PyArray_SAMESHAPE(p, g))
        return 0;
    const char *a = PyArray_DATA(p), *b = PyArray_DATA(g);
    return a + PyArray_NBYTES(p) <= b || b + PyArray_NBYTES(g) <= a;
}

static PyObject *are_pairs(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    if (nargs != 2 || !PyList_Check(args[0]) || !PyList_Check(args[1]))
        return PyErr_Format(PyExc_TypeError, "takes two lists, got %zd arguments", nargs);
    Py_ssize_t n = PyList_Size(args[0]);
    int valid = PyList_Size(args[1]) == n;
    for (Py_ssize_t i = 0; valid && i < n; i++) { /* references, as another thread may change the lists */
        PyObject *parameter = PySequence_GetItem(args[0], i), *grad = PySequence_GetItem(args[1], i);
        valid = parameter && grad && is_pair(parameter, grad);
        Py_XDECREF(parameter);
        Py_XDECREF(grad);
    }
    return PyErr_Occurred() ? NULL : PyBool_FromLong(valid);
}

static PyObject *adamw(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    int number = -1;
    void *p, *g, *m, *v;
    TAKES(10)
    if (as_output(args[0], "parameter", &number, -1, 0, &p) < 0) return NULL;
    const int64_t n = PyArray_SIZE((PyArrayObject *)args[0]), step = PyLong_AsLongLong(args[4]);
    double o[5];
    for (int i = 0; i < 5; i++) o[i] = PyFloat_AsDouble(args[5 + i]);
    if (PyErr_Occurred() || as_numbers(args[1], "grad", &number, n, 0, &g) < 0 ||
        as_output(args[2], "first", &number, n, 0, &m) < 0 || as_output(args[3], "second", &number, n, 0, &v) < 0)
        return NULL;
    RETURN(
        sh_adamw(SH_CALL(call), type_of(number), n, p, g, m, v, step, (sh_adamw_options){o[0], o[1], o[2], o[3], o[4]}))
}

#define FAST(f) (PyCFunction)(void (*)(void)) f, METH_FASTCALL
PyMethodDef sh_layer_operations[] = {
    {"associate_forward", FAST(forward),
     "associate_forward(queries, stored, values, beta, separation, parameter, samples, offsets, padding_mask, mask, "
     "steps, eps, dropout, seed, implicit, key_weight, key_bias, value_weight, value_bias, structure, appended, keep) "
     "-> out, tape, unconverged"},
    {"associate_backward", FAST(backward),
     "associate_backward(tape, grad, rows, beta, dqueries, dstored, dvalues) -> gradients of queries, stored, values, "
     "beta (B, N, H), key_weight, key_bias, value_weight, value_bias"},
    {"association_weights", weights, METH_O, "association_weights(tape) -> start, position, weight; rows b, h, n"},
    {"association_steps", steps, METH_O, "association_steps(tape) -> (B, N, H) updates made"},
    {"linear", FAST(linear), "linear(x, weight, bias, y)"},
    {"linear_backward", FAST(linear_backward), "linear_backward(x, weight, grad, dx, dweight, dbias)"},
    {"normalize", FAST(normalize), "normalize(x, eps, xhat, rstd)"},
    {"normalize_backward", FAST(normalize_backward), "normalize_backward(xhat, rstd, grad, dx)"},
    {"fold", FAST(fold), "fold(weight, bias, gain, shift, folded, moved)"},
    {"unfold", FAST(unfold), "unfold(dfolded, dmoved, weight, gain, shift, dweight, dgain, dshift)"},
    {"are_pairs", FAST(are_pairs), "are_pairs(parameters, grads): whether adamw takes them as they are"},
    {"adamw", FAST(adamw),
     "adamw(parameter, grad, first, second, step, learning_rate, beta1, beta2, eps, weight_decay), in place"},
    {NULL, NULL, 0, NULL},
};
