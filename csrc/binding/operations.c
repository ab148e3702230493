/* operations.c: the operations on memories, as plain functions of exact positional arguments. Python checks values and fills
 * in defaults; here only that is checked without which the core would read or write what it must not.
 *
 * A memory is a capsule that keeps its arrays alive. `queries` are C-contiguous, two-dimensional and of the
 * memory's compute type; beta is float64 of one number or one per query.
 */
#define _GNU_SOURCE
#include <time.h>
#include "binding/binding.h"
#include "retrieval/index/index.h"
#include "runtime/team.h"
#include "structure/structure.h"
#include <stdlib.h>
#include <string.h>

static const char MEMORY[] = "sparsehopfield._core.memory";

/* A memory, with the arrays that it reads: the content of a capsule. */
typedef struct {
    sh_memory *memory;
    PyObject *patterns, *values;
    PyObject *index_file; /* the array that an index lies in, or NULL */
    sh_type type;
    float scale;         /* of the patterns, if they are of a narrow type */
    int unchecked;       /* values are taken to be finite */
    int64_t n, d, width; /* patterns, their numbers, those of a value */
} stored;

static void release_memory(PyObject *capsule) {
    stored *h = PyCapsule_GetPointer(capsule, MEMORY);
    sh_call call = sh_begin_call(1);
    sh_memory_free(SH_CALL(call), h->memory);
    Py_XDECREF(h->patterns);
    Py_XDECREF(h->values);
    Py_XDECREF(h->index_file);
    free(h);
}

int sh_may_write(PyObject *array, const char *name) {
    if (PyArray_ISWRITEABLE((PyArrayObject *)array)) return 0;
    PyErr_Format(PyExc_ValueError, "%s: is read-only", name);
    return -1;
}

int sh_as_rows(PyObject *object, const char *name, sh_rows *rows) {
    if (!sh_is_in_place(object, name)) return -1;
    PyArrayObject *a = (PyArrayObject *)object;
    if (PyArray_NDIM(a) != 2) {
        PyErr_Format(PyExc_TypeError, "%s: must be a two-dimensional array", name);
        return -1;
    }
    *rows = (sh_rows){.data = PyArray_DATA(a), .n = PyArray_DIM(a, 0), .d = PyArray_DIM(a, 1)};
    int64_t size = (int64_t)PyArray_ITEMSIZE(a);
    rows->stride = rows->n > 1 ? (int64_t)PyArray_STRIDE(a, 0) : rows->d * size;
    int known = 1;
    switch (PyArray_TYPE(a)) {
    case NPY_FLOAT32: rows->type = SH_FLOAT32; break;
    case NPY_FLOAT64: rows->type = SH_FLOAT64; break;
    case NPY_UINT8: rows->type = SH_UINT8; break;
    case NPY_FLOAT16: rows->type = SH_FLOAT16; break;
    default: known = 0;
    }
    if (!known || (rows->n > 0 && rows->d > 1 && PyArray_STRIDE(a, 1) != size)) {
        PyErr_Format(PyExc_TypeError, "%s: must be float32, float64, float16 or uint8, with contiguous rows", name);
        return -1;
    }
    return 0;
}

/* Returns the capsule of a memory that a call has made of these arrays (values may be NULL), from `old` (or NULL); or frees
 * h, and returns NULL with the call's exception. */
static PyObject *as_capsule(stored *h, const stored *old, const sh_call *made, sh_status status, PyObject *patterns,
                            PyObject *values) {
    PyObject *capsule = status == SH_OK ? PyCapsule_New(h, MEMORY, release_memory) : sh_raise(made, status, h->type);
    if (!capsule) {
        sh_call call = sh_begin_call(1);
        sh_memory_free(SH_CALL(call), h->memory);
        free(h);
        return NULL;
    }
    h->n = sh_memory_count(h->memory);
    h->patterns = Py_NewRef(patterns);
    h->values = Py_XNewRef(values);
    h->index_file = old && sh_borrows_index(h->memory) ? Py_XNewRef(old->index_file) : NULL;
    return capsule;
}

/* Tells whether the numbers of an array lie in a mapped file. */
static int is_mapped(PyObject *array) {
    while (array && PyArray_Check(array)) array = PyArray_BASE((PyArrayObject *)array);
    PyObject *name = array ? PyType_GetName(Py_TYPE(array)) : NULL;
    const int is_map = name && PyUnicode_CompareWithASCIIString(name, "mmap") == 0;
    if (!name) PyErr_Clear();
    Py_XDECREF(name);
    return is_map;
}

/* Makes a memory of rows that begin with those of `old` (NULL: none), as a capsule; `like`: its other properties;
 * with_fingerprint: as sh_memory_make has it. */
static PyObject *make_memory(const stored *old, stored like, PyObject *patterns, PyObject *values,
                             sh_similarity similarity, int with_fingerprint) {
    sh_rows rows, mixed;
    const int has_values = values != Py_None;
    if (sh_as_rows(patterns, "patterns", &rows) < 0 || (has_values && sh_as_rows(values, "values", &mixed) < 0))
        return NULL;
    rows.scale = like.scale;
    mixed.unchecked = old ? 0 : like.unchecked;
    stored *h = malloc(sizeof *h);
    if (!h) return PyErr_NoMemory();
    *h = like;
    h->memory = NULL;
    h->d = rows.d;
    h->width = has_values ? mixed.d : rows.d;
    const sh_rows *mixed_rows = has_values ? &mixed : NULL;
    SH_RUN(call, status,
           old ? sh_memory_extend(SH_CALL(call), old->memory, &rows, mixed_rows, &h->memory)
               : sh_memory_make(SH_CALL(call), with_fingerprint, &rows, mixed_rows, similarity, h->type, &h->memory))
    if (status == SH_OK) sh_memory_use_map(h->memory, is_mapped(patterns));
    return as_capsule(h, old, &call, status, patterns, has_values ? values : NULL);
}

/* Checks that there are `most` arguments, or all but the last. */
static int expect_or_less_one(Py_ssize_t nargs, Py_ssize_t most) {
    return sh_expect(nargs, nargs == most ? most : most - 1);
}

static PyObject *memory_new(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    const int with_fingerprint = nargs == 7 && PyObject_IsTrue(args[6]);
    if (expect_or_less_one(nargs, 7) < 0) return NULL;
    long similarity = PyLong_AsLong(args[2]), type = PyLong_AsLong(args[3]);
    stored like = {.type = type == SH_FLOAT64 ? SH_FLOAT64 : SH_FLOAT32, .scale = (float)PyFloat_AsDouble(args[4])};
    like.unchecked = !PyObject_IsTrue(args[5]);
    if (PyErr_Occurred()) return NULL;
    return make_memory(NULL, like, args[0], args[1], (sh_similarity)similarity, with_fingerprint);
}

/* Extends a memory to arrays that begin with its rows. New rows are always checked. */
static PyObject *extend(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    if (sh_expect(nargs, 3) < 0) return NULL;
    stored *old = PyCapsule_GetPointer(args[0], MEMORY);
    return old ? make_memory(old, *old, args[1], args[2], SH_DOT, 0) : NULL;
}

/* Returns 0 for a contiguous array of a type (NumPy's number); -1 with an exception. */
static int as_array(PyObject *object, const char *name, int number, int dimensions) {
    PyArrayObject *a = (PyArrayObject *)object;
    if (!sh_is_in_place(object, name)) return -1;
    if (PyArray_TYPE(a) == number && PyArray_NDIM(a) == dimensions && PyArray_IS_C_CONTIGUOUS(a)) return 0;
    PyErr_Format(PyExc_TypeError, "%s: must be a contiguous array of %d dimensions and the right dtype", name,
                 dimensions);
    return -1;
}

static PyObject *new_array(int number, int64_t n) {
    npy_intp shape[1] = {(npy_intp)n};
    return PyArray_SimpleNew(1, shape, number);
}
static void *data_of(PyObject *array) { return PyArray_DATA((PyArrayObject *)array); }

/* Returns the array that a call has filled, or NULL with its exception. */
static PyObject *returned(PyObject *array, const sh_call *call, sh_status status, sh_type type) {
    if (status == SH_OK) return array;
    Py_DECREF(array);
    return sh_raise(call, status, type);
}

/* Makes a memory of the same arrays without some patterns. */
static PyObject *without(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    stored *old;
    if (sh_expect(nargs, 2) < 0 || !(old = PyCapsule_GetPointer(args[0], MEMORY)) ||
        as_array(args[1], "positions", NPY_INT64, 1) < 0)
        return NULL;
    stored *h = malloc(sizeof *h);
    if (!h) return PyErr_NoMemory();
    *h = *old;
    h->memory = NULL;
    SH_RUN(call, status,
           sh_memory_remove(SH_CALL(call), old->memory, PyArray_DIM((PyArrayObject *)args[1], 0), data_of(args[1]),
                            &h->memory))
    return as_capsule(h, old, &call, status, old->patterns, old->values);
}

/* Returns which rows of its arrays some patterns of a memory are; of None, all. */
static PyObject *rows_of(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    stored *h;
    if (sh_expect(nargs, 2) < 0 || !(h = PyCapsule_GetPointer(args[0], MEMORY))) return NULL;
    const int all = args[1] == Py_None;
    if (!all && as_array(args[1], "positions", NPY_INT64, 1) < 0) return NULL;
    const int64_t n = all ? h->n : PyArray_DIM((PyArrayObject *)args[1], 0);
    PyObject *rows = new_array(NPY_INT64, n);
    if (!rows) return NULL;
    SH_RUN(call, status, sh_memory_rows(SH_CALL(call), h->memory, n, all ? NULL : data_of(args[1]), data_of(rows)))
    return returned(rows, &call, status, h->type);
}

static PyObject *fingerprint(PyObject *module, PyObject *capsule) {
    (void)module;
    stored *h = PyCapsule_GetPointer(capsule, MEMORY);
    if (!h) return NULL;
    uint64_t number;
    SH_RUN(call, status, sh_memory_fingerprint(SH_CALL(call), h->memory, &number))
    return status == SH_OK ? PyLong_FromUnsignedLongLong(number) : sh_raise(&call, status, h->type);
}

static int number_of(sh_type type) { return type == SH_FLOAT64 ? NPY_FLOAT64 : NPY_FLOAT32; }

/* The arguments that operations on queries begin with: memory, queries, beta, separation, parameter; perhaps structure. */
typedef struct {
    stored *h;
    sh_queries queries;
    sh_model model;
    sh_structure structure;
} query_arguments;

static int as_model(PyObject *separation, PyObject *parameter, sh_model *model) {
    model->separation = (sh_separation)PyLong_AsLong(separation);
    model->parameter = PyFloat_AsDouble(parameter);
    return PyErr_Occurred() ? -1 : 0;
}

static int as_beta(PyObject *object, int64_t n, const double **beta, int64_t *stride) {
    if (as_array(object, "beta", NPY_FLOAT64, 1) < 0) return -1;
    int64_t have = PyArray_DIM((PyArrayObject *)object, 0);
    if (have != 1 && have != n) {
        PyErr_SetString(PyExc_ValueError, "beta: must be one number or one per query");
        return -1;
    }
    *beta = PyArray_DATA((PyArrayObject *)object);
    *stride = have != 1;
    return 0;
}

/* Takes the first five arguments. */
static int as_queries(PyObject *const *args, query_arguments *b) {
    b->h = PyCapsule_GetPointer(args[0], MEMORY);
    if (!b->h || as_array(args[1], "queries", number_of(b->h->type), 2) < 0) return -1;
    PyArrayObject *queries = (PyArrayObject *)args[1];
    b->queries = (sh_queries){.data = PyArray_DATA(queries), .n = PyArray_DIM(queries, 0)};
    if (PyArray_DIM(queries, 1) != b->h->d) {
        PyErr_SetString(PyExc_ValueError, "queries: another number of features than the patterns");
        return -1;
    }
    if (as_beta(args[2], b->queries.n, &b->queries.beta, &b->queries.beta_stride) < 0) return -1;
    return as_model(args[3], args[4], &b->model);
}

/* Takes an array of int64, or None; returns its length, or -1. */
static int64_t as_places(PyObject *object, const char *name, const int64_t **data) {
    *data = NULL;
    if (object == Py_None) return 0;
    if (as_array(object, name, NPY_INT64, 1) < 0) return -1;
    *data = PyArray_DATA((PyArrayObject *)object);
    return PyArray_DIM((PyArrayObject *)object, 0);
}

int sh_as_structure(PyObject *object, int64_t queries, sh_structure *s, const sh_structure **structure) {
    if (object == Py_None) return 0;
    long long k, width, dilation, rows, columns;
    unsigned long long seed;
    int pairs;
    PyObject *position, *start, *column;
    if (!PyArg_ParseTuple(object, "iLLLpKLLOOO:structure", &pairs, &k, &width, &dilation, &s->causal, &seed, &rows,
                          &columns, &position, &start, &column))
        return -1;
    *s = (sh_structure){(sh_pairs)pairs, k, width, dilation, s->causal, seed, rows, columns, NULL, NULL, NULL, 0, 0};
    int64_t places = as_places(position, "positions", &s->position), starts = as_places(start, "start", &s->start);
    s->column_n = as_places(column, "column", &s->column);
    if (places < 0 || starts < 0 || s->column_n < 0) return -1;
    s->start_n = starts - 1;
    if (s->position && places != queries) {
        PyErr_SetString(PyExc_ValueError, "structure: lists of the wrong length");
        return -1;
    }
    *structure = s;
    return 0;
}

/* Takes these and a structure. */
static int as_structured_queries(PyObject *const *args, query_arguments *b) {
    if (as_queries(args, b) < 0) return -1;
    if (sh_as_structure(args[5], b->queries.n, &b->structure, &b->queries.structure) < 0) return -1;
    if (!sh_by_place(b->queries.structure) || b->h->n <= INT32_MAX) return 0;
    PyErr_Format(PyExc_OverflowError, "structure: takes at most %ld patterns, got %lld; TopK takes more",
                 (long)INT32_MAX, (long long)b->h->n);
    return -1;
}

/* Takes `exclude`, the last of `most` arguments, if it is there; its positions are checked by the core. */
static int as_excluding(PyObject *const *args, Py_ssize_t nargs, Py_ssize_t most, query_arguments *b) {
    if (nargs < most) return 0;
    const int64_t n = as_places(args[most - 1], "exclude", &b->queries.exclude);
    if (n < 0) return -1;
    if (!b->queries.exclude || n == b->queries.n) return 0;
    PyErr_SetString(PyExc_ValueError, "exclude: must be one position per query");
    return -1;
}

/* Takes a writeable array (n, width) of the memory's type. */
static int as_output(PyObject *object, const stored *h, int64_t n, int64_t width, void **data) {
    if (as_array(object, "out", number_of(h->type), 2) < 0 || sh_may_write(object, "out") < 0) return -1;
    PyArrayObject *out = (PyArrayObject *)object;
    if (PyArray_DIM(out, 0) != n || PyArray_DIM(out, 1) != width) {
        PyErr_SetString(PyExc_ValueError, "out: must have the shape of the result");
        return -1;
    }
    *data = PyArray_DATA(out);
    return 0;
}

static PyObject *update(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    query_arguments b;
    void *out;
    if (expect_or_less_one(nargs, 8) < 0 || as_structured_queries(args, &b) < 0 ||
        as_excluding(args, nargs, 8, &b) < 0 || as_output(args[6], b.h, b.queries.n, b.h->width, &out) < 0)
        return NULL;
    SH_RUN(call, status, sh_update(SH_CALL(call), b.h->memory, b.model, b.queries, out, NULL))
    return status == SH_OK ? Py_NewRef(Py_None) : sh_raise(&call, status, b.h->type);
}

static PyObject *energy(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    query_arguments b;
    if (expect_or_less_one(nargs, 7) < 0 || as_structured_queries(args, &b) < 0 || as_excluding(args, nargs, 7, &b) < 0)
        return NULL;
    PyObject *result = new_array(NPY_FLOAT64, b.queries.n);
    if (!result) return NULL;
    SH_RUN(call, status, sh_energy(SH_CALL(call), b.h->memory, b.model, b.queries, data_of(result)))
    return returned(result, &call, status, b.h->type);
}

static PyObject *retrieve(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    query_arguments b;
    void *out, *before = NULL;
    if (expect_or_less_one(nargs, 11) < 0 || as_structured_queries(args, &b) < 0 ||
        as_excluding(args, nargs, 11, &b) < 0 || as_output(args[8], b.h, b.queries.n, b.h->d, &out) < 0)
        return NULL;
    if (args[9] != Py_None && as_output(args[9], b.h, b.queries.n, b.h->d, &before) < 0) return NULL;
    long long max_steps = PyLong_AsLongLong(args[6]);
    double tol = PyFloat_AsDouble(args[7]);
    if (PyErr_Occurred()) return NULL;
    PyObject *steps = new_array(NPY_INT64, b.queries.n), *converged = new_array(NPY_BOOL, b.queries.n);
    PyObject *support = new_array(NPY_INT64, b.queries.n), *result = NULL;
    if (steps && converged && support) {
        SH_RUN(call, status,
               sh_retrieve(SH_CALL(call), b.h->memory, b.model, b.queries, max_steps, tol, out, data_of(steps),
                           data_of(converged), data_of(support), before))
        result = status == SH_OK ? PyTuple_Pack(3, steps, converged, support) : sh_raise(&call, status, b.h->type);
    }
    Py_XDECREF(steps);
    Py_XDECREF(converged);
    Py_XDECREF(support);
    return result;
}

/* Returns max |xi| of a memory's patterns. */
static PyObject *max_norm(PyObject *module, PyObject *capsule) {
    (void)module;
    stored *h = PyCapsule_GetPointer(capsule, MEMORY);
    if (!h) return NULL;
    double norm;
    SH_RUN(call, status, sh_memory_max_norm(SH_CALL(call), h->memory, &norm))
    return status == SH_OK ? PyFloat_FromDouble(norm) : sh_raise(&call, status, h->type);
}

/* Tells a memory that serves no calls yet of the whole that it is part of. */
static PyObject *set_whole(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    stored *h;
    if (sh_expect(nargs, 3) < 0 || !(h = PyCapsule_GetPointer(args[0], MEMORY))) return NULL;
    const long long count = PyLong_AsLongLong(args[1]);
    const double norm = PyFloat_AsDouble(args[2]);
    if (PyErr_Occurred()) return NULL;
    SH_RUN(call, status, sh_memory_set_whole(SH_CALL(call), h->memory, count, norm))
    return status == SH_OK ? Py_NewRef(Py_None) : sh_raise(&call, status, h->type);
}

/* Reads a memory, and a function that is told the progress, or None. */
static stored *as_told(PyObject *const *args, Py_ssize_t nargs, PyObject **progress) {
    if (nargs < 1 || nargs > 2) {
        PyErr_Format(PyExc_TypeError, "takes 1 or 2 arguments, got %zd", nargs);
        return NULL;
    }
    *progress = nargs > 1 ? args[1] : Py_None;
    return PyCapsule_GetPointer(args[0], MEMORY);
}

static PyObject *build_index(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    PyObject *progress;
    stored *h = as_told(args, nargs, &progress);
    if (!h) return NULL;
    SH_RUN_AND_TELL(call, status, progress, sh_memory_index(SH_CALL(call), h->memory))
    return status == SH_OK ? Py_NewRef(Py_None) : sh_raise(&call, status, h->type);
}

/* Gives a memory the indexes of another of the same patterns. */
static PyObject *share_index(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    stored *h, *other;
    if (sh_expect(nargs, 2) < 0 || !(h = PyCapsule_GetPointer(args[0], MEMORY)) ||
        !(other = PyCapsule_GetPointer(args[1], MEMORY)))
        return NULL;
    sh_call call = sh_begin_call(1);
    sh_status status = sh_memory_share_index(SH_CALL(call), h->memory, other->memory);
    if (!h->index_file) h->index_file = Py_XNewRef(other->index_file); /* in which a shared index may lie */
    return status == SH_OK ? Py_NewRef(Py_None) : sh_raise(&call, status, h->type);
}

static PyObject *index_nbytes(PyObject *module, PyObject *capsule) {
    (void)module;
    stored *h = PyCapsule_GetPointer(capsule, MEMORY);
    return h ? PyLong_FromLongLong(sh_memory_index_bytes(h->memory)) : NULL;
}

/* Returns a memory's indexes as an array of bytes, or None where it has none. */
static PyObject *export_index(PyObject *module, PyObject *capsule) {
    (void)module;
    stored *h = PyCapsule_GetPointer(capsule, MEMORY);
    if (!h) return NULL;
    for (int64_t capacity = 0;;) { /* again where a call has built another meanwhile */
        PyObject *file = new_array(NPY_UINT8, capacity);
        if (!file) return NULL;
        int64_t bytes = 0;
        SH_RUN(call, status, sh_memory_index_export(SH_CALL(call), h->memory, data_of(file), capacity, &bytes))
        if (status != SH_OK) return returned(file, &call, status, h->type);
        if (bytes == capacity && bytes > 0) return file;
        Py_DECREF(file);
        if (bytes == 0) return Py_NewRef(Py_None);
        capacity = bytes;
    }
}

/* Has a memory that has no index yet use those in an array. Returns None, or the word for what is wrong with it. */
static PyObject *import_index(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    stored *h;
    if (sh_expect(nargs, 2) < 0 || !(h = PyCapsule_GetPointer(args[0], MEMORY)) ||
        as_array(args[1], "index", NPY_UINT8, 1) < 0)
        return NULL;
    if (h->index_file) return PyErr_Format(PyExc_ValueError, "memory: has an index from a file");
    SH_RUN(call, status,
           sh_memory_index_import(SH_CALL(call), h->memory, data_of(args[1]), PyArray_SIZE((PyArrayObject *)args[1])))
    if (status == SH_OK) h->index_file = Py_NewRef(args[1]);
    if (status == SH_BAD_ARGUMENT) return PyUnicode_FromString(call.core.argument);
    return status == SH_OK ? Py_NewRef(Py_None) : sh_raise(&call, status, h->type);
}

/* Gives a new memory of the patterns that are left of another the other's indexes, without the removed ones. */
static PyObject *pack_index(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    stored *h, *other;
    if (sh_expect(nargs, 2) < 0 || !(h = PyCapsule_GetPointer(args[0], MEMORY)) ||
        !(other = PyCapsule_GetPointer(args[1], MEMORY)))
        return NULL;
    SH_RUN(call, status, sh_memory_pack_index(SH_CALL(call), h->memory, other->memory))
    return status == SH_OK ? Py_NewRef(Py_None) : sh_raise(&call, status, h->type);
}

/* Tells whether a call may take so many bytes for an index by itself. */
static PyObject *index_fits(PyObject *module, PyObject *bytes) {
    (void)module;
    const long long needed = PyLong_AsLongLong(bytes);
    if (needed == -1 && PyErr_Occurred()) return NULL;
    return PyBool_FromLong(needed <= sh_index_budget(SH_INDEX_AUTO));
}

/* Sets how a memory that serves no calls yet uses indexes. */
static PyObject *use_index(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    stored *h;
    if (sh_expect(nargs, 2) < 0 || !(h = PyCapsule_GetPointer(args[0], MEMORY))) return NULL;
    long use = PyLong_AsLong(args[1]);
    if (PyErr_Occurred()) return NULL;
    sh_call call = sh_begin_call(1);
    sh_memory_use_index(SH_CALL(call), h->memory, (sh_index_use)use);
    return Py_NewRef(Py_None);
}

static PyObject *survey(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    query_arguments b;
    if (expect_or_less_one(nargs, 6) < 0 || as_queries(args, &b) < 0 || as_excluding(args, nargs, 6, &b) < 0)
        return NULL;
    npy_intp shape[2] = {(npy_intp)b.queries.n, 4};
    PyObject *counts = PyArray_SimpleNew(2, shape, NPY_INT64);
    if (!counts) return NULL;
    SH_RUN(call, status, sh_survey(SH_CALL(call), b.h->memory, b.model, b.queries, data_of(counts)))
    return returned(counts, &call, status, b.h->type);
}

static PyObject *bounds(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    query_arguments b;
    if (sh_expect(nargs, 5) < 0 || as_queries(args, &b) < 0) return NULL;
    npy_intp shape[3] = {(npy_intp)b.queries.n, (npy_intp)b.h->n, 3};
    PyObject *result = PyArray_SimpleNew(3, shape, NPY_FLOAT64);
    if (!result) return NULL;
    SH_RUN(call, status, sh_bounds(SH_CALL(call), b.h->memory, b.queries, data_of(result)))
    return returned(result, &call, status, b.h->type);
}

static PyObject *margins(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    PyObject *progress;
    stored *h = as_told(args, nargs, &progress);
    if (!h) return NULL;
    PyObject *result = new_array(NPY_FLOAT64, h->n);
    if (!result) return NULL;
    SH_RUN_AND_TELL(call, status, progress, sh_margins(SH_CALL(call), h->memory, data_of(result)))
    return returned(result, &call, status, h->type);
}

static PyObject *nearest(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    query_arguments b;
    if (expect_or_less_one(nargs, 7) < 0 || as_queries(args, &b) < 0 || as_excluding(args, nargs, 7, &b) < 0)
        return NULL;
    long long count = PyLong_AsLongLong(args[5]);
    if (PyErr_Occurred()) return NULL;
    if (count < 1 || count > SH_NEAREST)
        return PyErr_Format(PyExc_ValueError, "count: must be from 1 to %d, got %lld", SH_NEAREST, count);
    npy_intp shape[2] = {(npy_intp)b.queries.n, (npy_intp)count};
    PyObject *position = PyArray_SimpleNew(2, shape, NPY_INT64), *score = PyArray_SimpleNew(2, shape, NPY_FLOAT64);
    PyObject *result = NULL;
    if (position && score) {
        SH_RUN(call, status,
               sh_nearest(SH_CALL(call), b.h->memory, b.queries, count, data_of(position), data_of(score)))
        result = status == SH_OK ? PyTuple_Pack(2, position, score) : sh_raise(&call, status, b.h->type);
    }
    Py_XDECREF(position);
    Py_XDECREF(score);
    return result;
}

static PyObject *radii(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    stored *h;
    if ((nargs != 5 && sh_expect(nargs, 4) < 0) || !(h = PyCapsule_GetPointer(args[0], MEMORY))) return NULL;
    PyObject *progress = nargs == 5 ? args[4] : Py_None;
    if (as_array(args[1], "which", NPY_INT64, 1) < 0 || as_array(args[2], "need", NPY_FLOAT64, 1) < 0) return NULL;
    int64_t n = PyArray_DIM((PyArrayObject *)args[1], 0);
    if (PyArray_DIM((PyArrayObject *)args[2], 0) != n) {
        PyErr_SetString(PyExc_ValueError, "need: must be as long as which");
        return NULL;
    }
    double slack = PyFloat_AsDouble(args[3]);
    if (PyErr_Occurred()) return NULL;
    PyObject *radius = new_array(NPY_FLOAT64, n), *rival = new_array(NPY_INT64, n), *result = NULL;
    if (radius && rival) {
        SH_RUN_AND_TELL(call, status, progress,
                        sh_radii(SH_CALL(call), h->memory, n, data_of(args[1]), data_of(args[2]), slack,
                                 data_of(radius), data_of(rival)))
        result = status == SH_OK ? PyTuple_Pack(2, radius, rival) : sh_raise(&call, status, h->type);
    }
    Py_XDECREF(radius);
    Py_XDECREF(rival);
    return result;
}

static PyObject *copied(int number, const void *data, int64_t n, size_t size) {
    PyObject *array = new_array(number, n);
    if (array) memcpy(data_of(array), data, (size_t)n * size);
    return array;
}

/* Returns start, position and score of entries, which it frees, and `last` (or NULL, with an exception), which it takes. */
static PyObject *as_lists(sh_call *call, sh_entries *entries, PyObject *last) {
    const int64_t total = entries->start[entries->n];
    PyObject *start = copied(NPY_INT64, entries->start, entries->n + 1, sizeof(int64_t));
    PyObject *position = copied(NPY_INT64, entries->position, total, sizeof(int64_t));
    PyObject *score = copied(NPY_FLOAT64, entries->score, total, sizeof(double));
    sh_entries_free(SH_CALL(*call), entries);
    PyObject *result = start && position && score && last ? PyTuple_Pack(4, start, position, score, last) : NULL;
    Py_XDECREF(start);
    Py_XDECREF(position);
    Py_XDECREF(score);
    Py_XDECREF(last);
    return result;
}

static PyObject *associate(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    query_arguments b;
    if (expect_or_less_one(nargs, 9) < 0 || as_structured_queries(args, &b) < 0 || as_excluding(args, nargs, 9, &b) < 0)
        return NULL;
    long long top = PyLong_AsLongLong(args[6]);
    double min_weight = PyFloat_AsDouble(args[7]);
    if (PyErr_Occurred()) return NULL;
    sh_entries entries;
    SH_RUN(call, status, sh_associate(SH_CALL(call), b.h->memory, b.model, b.queries, top, min_weight, &entries))
    if (status != SH_OK) return sh_raise(&call, status, b.h->type);
    PyObject *weight = copied(NPY_FLOAT64, entries.weight, entries.start[entries.n], sizeof(double));
    return as_lists(&call, &entries, weight);
}

static PyObject *candidates(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    query_arguments b;
    const double *floor = NULL;
    if (expect_or_less_one(nargs, 9) < 0 || as_structured_queries(args, &b) < 0 || as_excluding(args, nargs, 9, &b) < 0)
        return NULL;
    if (args[6] != Py_None) {
        if (as_array(args[6], "floor", NPY_FLOAT64, 1) < 0) return NULL;
        if (PyArray_DIM((PyArrayObject *)args[6], 0) != b.queries.n)
            return PyErr_Format(PyExc_ValueError, "floor: must be one number per query");
        floor = data_of(args[6]);
    }
    long long most = PyLong_AsLongLong(args[7]);
    if (PyErr_Occurred()) return NULL;
    PyObject *too_many = new_array(NPY_BOOL, b.queries.n);
    if (!too_many) return NULL;
    sh_entries entries;
    SH_RUN(call, status,
           sh_candidates(SH_CALL(call), b.h->memory, b.model, b.queries, floor, most, &entries, data_of(too_many)))
    if (status != SH_OK) return returned(too_many, &call, status, b.h->type);
    return as_lists(&call, &entries, too_many);
}

/* Takes start (n + 1), ascending from 0 to the length of the lists. */
static int as_start(PyObject *object, int64_t length, int64_t *n) {
    if (as_array(object, "start", NPY_INT64, 1) < 0) return -1;
    const int64_t *start = data_of(object);
    *n = PyArray_DIM((PyArrayObject *)object, 0) - 1;
    int sound = *n >= 0 && start[0] == 0 && start[*n] == length;
    for (int64_t i = 0; sound && i < *n; i++) sound = start[i] <= start[i + 1];
    if (sound) return 0;
    PyErr_SetString(PyExc_ValueError, "start: must ascend from 0 to the number of entries");
    return -1;
}

static PyObject *solve(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    sh_model model;
    const double *beta;
    int64_t n, stride;
    if (sh_expect(nargs, 6) < 0 || as_model(args[0], args[1], &model) < 0) return NULL;
    sh_type type = PyLong_AsLong(args[2]) == SH_FLOAT64 ? SH_FLOAT64 : SH_FLOAT32;
    if (PyErr_Occurred() || as_array(args[5], "score", NPY_FLOAT64, 1) < 0) return NULL;
    int64_t length = PyArray_DIM((PyArrayObject *)args[5], 0);
    if (as_start(args[4], length, &n) < 0 || as_beta(args[3], n, &beta, &stride) < 0) return NULL;
    PyObject *weight = new_array(NPY_FLOAT64, length);
    if (!weight) return NULL;
    SH_RUN(call, status,
           sh_solve(SH_CALL(call), model, type, n, beta, stride, data_of(args[4]), data_of(args[5]), data_of(weight)))
    return returned(weight, &call, status, type);
}

static PyObject *mix(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    stored *h;
    void *out;
    int64_t n;
    if (sh_expect(nargs, 5) < 0 || !(h = PyCapsule_GetPointer(args[0], MEMORY))) return NULL;
    if (as_array(args[2], "position", NPY_INT64, 1) < 0 || as_array(args[3], "weight", NPY_FLOAT64, 1) < 0) return NULL;
    int64_t length = PyArray_DIM((PyArrayObject *)args[2], 0);
    if (PyArray_DIM((PyArrayObject *)args[3], 0) != length) {
        PyErr_SetString(PyExc_ValueError, "weight: must be as long as position");
        return NULL;
    }
    if (as_start(args[1], length, &n) < 0 || as_output(args[4], h, n, h->width, &out) < 0) return NULL;
    SH_RUN(call, status, sh_mix(SH_CALL(call), h->memory, n, data_of(args[1]), data_of(args[2]), data_of(args[3]), out))
    return status == SH_OK ? Py_NewRef(Py_None) : sh_raise(&call, status, h->type);
}

static PyObject *accumulate(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    query_arguments b;
    sh_partial partial;
    if (expect_or_less_one(nargs, 7) < 0 || as_queries(args, &b) < 0 || as_excluding(args, nargs, 7, &b) < 0 ||
        as_output(args[5], b.h, b.queries.n, b.h->width, &partial.mixture) < 0)
        return NULL;
    PyObject *scale = new_array(NPY_FLOAT64, b.queries.n), *sum = new_array(NPY_FLOAT64, b.queries.n), *result = NULL;
    if (scale && sum) {
        partial.scale = data_of(scale);
        partial.sum = data_of(sum);
        SH_RUN(call, status, sh_accumulate(SH_CALL(call), b.h->memory, b.model, b.queries, partial))
        result = status == SH_OK ? PyTuple_Pack(2, scale, sum) : sh_raise(&call, status, b.h->type);
    }
    Py_XDECREF(scale);
    Py_XDECREF(sum);
    return result;
}

/* Takes separation, parameter, beta, and scale, sum and mixture of two partial results; the first becomes that of both. */
static PyObject *merge(PyObject *module, PyObject *const *args, Py_ssize_t nargs) {
    (void)module;
    sh_model model;
    sh_partial part[2];
    if (sh_expect(nargs, 9) < 0 || as_model(args[0], args[1], &model) < 0 || !sh_is_in_place(args[5], "mixture"))
        return NULL;
    int number = PyArray_TYPE((PyArrayObject *)args[5]);
    int64_t n = -1, width = -1, stride;
    const double *beta;
    for (int i = 0; i < 2; i++) {
        PyObject *const *a = args + 3 + 3 * i;
        if (as_array(a[0], "scale", NPY_FLOAT64, 1) < 0 || as_array(a[1], "sum", NPY_FLOAT64, 1) < 0 ||
            as_array(a[2], "mixture", number, 2) < 0)
            return NULL;
        if (i == 0) {
            if (sh_may_write(a[0], "scale") < 0 || sh_may_write(a[1], "sum") < 0 || sh_may_write(a[2], "mixture") < 0)
                return NULL;
            n = PyArray_DIM((PyArrayObject *)a[2], 0);
            width = PyArray_DIM((PyArrayObject *)a[2], 1);
        }
        if (PyArray_DIM((PyArrayObject *)a[2], 0) != n || PyArray_DIM((PyArrayObject *)a[2], 1) != width ||
            PyArray_DIM((PyArrayObject *)a[0], 0) != n || PyArray_DIM((PyArrayObject *)a[1], 0) != n) {
            PyErr_SetString(PyExc_ValueError, "parts: must have the same queries and width");
            return NULL;
        }
        part[i] = (sh_partial){.scale = data_of(a[0]), .sum = data_of(a[1]), .mixture = data_of(a[2])};
    }
    if (as_beta(args[2], n, &beta, &stride) < 0) return NULL;
    sh_type type = number == NPY_FLOAT64 ? SH_FLOAT64 : SH_FLOAT32;
    SH_RUN(call, status, sh_merge(model, type, n, width, beta, stride, part[0], part[1]))
    return status == SH_OK ? Py_NewRef(Py_None) : sh_raise(&call, status, type);
}

/* Returns the numbers of the structures by their names. */
static PyObject *structures(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    PyObject *all = PyDict_New();
    for (int i = 0; all && i < sh_structure_count; i++) {
        PyObject *number = PyLong_FromLong(i);
        if (!number || PyDict_SetItemString(all, sh_structure_kinds[i].name, number) < 0) Py_CLEAR(all);
        Py_XDECREF(number);
    }
    return all;
}

static PyObject *get_num_threads(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    return PyLong_FromLong(sh_get_num_threads());
}

static PyObject *set_num_threads(PyObject *module, PyObject *argument) {
    (void)module;
    long n = PyLong_AsLong(argument);
    if (n == -1 && PyErr_Occurred()) return NULL;
    if (n < 1 || n > SH_MAX_THREADS)
        return PyErr_Format(PyExc_ValueError, "n: must be from 1 to %d threads, got %ld", SH_MAX_THREADS, n);
    return PyLong_FromLong(sh_set_num_threads((int)n));
}

static PyObject *share_openmp(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    if (sh_expect(count, 3) < 0) return NULL;
    void *found[3];
    for (int i = 0; i < 3; i++) {
        found[i] = PyLong_AsVoidPtr(args[i]);
        if (PyErr_Occurred()) return NULL;
    }
    sh_share_openmp((sh_openmp){
        .GOMP_parallel = (void (*)(void (*)(void *), void *, unsigned, unsigned))found[0],
        .omp_get_max_threads = (int (*)(void))found[1],
        .omp_in_parallel = (int (*)(void))found[2],
    });
    Py_RETURN_NONE;
}

static PyObject *config(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
#ifdef SH_BLAS_PREFIX
    const char *library = "OpenBLAS (bundled)";
#else
    const char *library = "OpenBLAS (system)";
#endif
    return Py_BuildValue("{s:s,s:s,s:s,s:s,s:i,s:s,s:s,s:O}", "version", sh_version(), "blas_library", library,
                         "blas_version", sh_blas_version(), "blas_core", sh_blas_core(), "blas_threads",
                         sh_blas_threads(), "simd", sh_simd_level(), "simd_available", sh_simd_available(),
                         "shares_openmp", sh_shares_openmp() ? Py_True : Py_False);
}

#define FAST(f) (PyCFunction)(void (*)(void)) f, METH_FASTCALL
PyMethodDef sh_operations[] = {
    {"memory", FAST(memory_new),
     "memory(patterns, values, similarity, dtype, scale, check_values[, fingerprint]) -> capsule; fingerprint: that of "
     "the patterns is computed in the same pass, for import_index"},
    {"extend", FAST(extend), "extend(memory, patterns, values) -> capsule, of rows that begin with the memory's"},
    {"without", FAST(without), "without(memory, positions) -> capsule, of the same arrays without some patterns"},
    {"rows_of", FAST(rows_of), "rows_of(memory, positions) -> which rows of its arrays patterns are; None: all"},
    {"fingerprint", fingerprint, METH_O, "fingerprint(memory) -> int, of all that is stored"},
    {"update", FAST(update),
     "update(memory, queries, beta, separation, parameter, structure, out[, exclude]); exclude, here and below: one "
     "position per query, or -1"},
    {"energy", FAST(energy), "energy(memory, queries, beta, separation, parameter, structure[, exclude]) -> float64"},
    {"retrieve", FAST(retrieve),
     "retrieve(memory, queries, beta, separation, parameter, structure, max_steps, tol, out, before[, exclude]) -> "
     "steps, converged, support_size"},
    {"associate", FAST(associate),
     "associate(memory, queries, beta, separation, parameter, structure, top, min_weight[, exclude]) -> start, "
     "position, score, "
     "weight"},
    {"candidates", FAST(candidates),
     "candidates(memory, queries, beta, separation, parameter, structure, floor, most[, exclude]) -> start, position, "
     "score, "
     "too_many"},
    {"max_norm", max_norm, METH_O, "max_norm(memory) -> float: the largest length of a pattern"},
    {"set_whole", FAST(set_whole),
     "set_whole(memory, count, max_norm): tells a new memory of the whole that its patterns are part of."},
    {"build_index", FAST(build_index), "build_index(memory, progress=None): now, if there is none."},
    {"share_index", FAST(share_index),
     "Gives a memory the indexes of another of the same patterns that it has none of."},
    {"index_nbytes", index_nbytes, METH_O, "Returns the bytes of a memory's indexes."},
    {"export_index", export_index, METH_O, "export_index(memory) -> uint8 array, or None: its indexes, for a file"},
    {"import_index", FAST(import_index),
     "import_index(memory, index): has it use those in an array at a multiple of 64, which it keeps; returns what is "
     "wrong with that, or None"},
    {"pack_index", FAST(pack_index),
     "pack_index(memory, other): gives a new memory of the patterns that are left of another the other's indexes, if "
     "these fit"},
    {"index_fits", index_fits, METH_O, "index_fits(bytes): whether a call may take so many for an index by itself"},
    {"use_index", FAST(use_index),
     "use_index(memory, use): whether calls build one: 0 if memory is left, 1 always, 2 never. Of a new memory."},
    {"survey", FAST(survey),
     "survey(memory, queries, beta, separation, parameter[, exclude]) -> (N, 4): listed, bounded, scored, support; -1 "
     "unknown"},
    {"_bounds", FAST(bounds),
     "_bounds(memory, queries, beta, separation, parameter) -> (N, M, 3): what scores cannot pass, "
     "twice, and cannot be below."},
    {"margins", FAST(margins), "margins(memory, progress=None): own score less the best other, of every pattern."},
    {"radii", FAST(radii),
     "radii(memory, which, need, slack, progress=None) -> radius, rival: the least (lead - need) / distance of each "
     "pattern, and "
     "whose"},
    {"nearest", FAST(nearest),
     "nearest(memory, queries, beta, separation, parameter, count[, exclude]) -> (N, count) position, score: the best, "
     "sorted"},
    {"solve", FAST(solve), "solve(separation, parameter, dtype, beta, start, score) -> weight"},
    {"mix", FAST(mix), "mix(memory, start, position, weight, out)"},
    {"accumulate", FAST(accumulate),
     "accumulate(memory, queries, beta, separation, parameter, mixture[, exclude]) -> scale, sum"},
    {"merge", FAST(merge), "merge(separation, parameter, beta, scale, sum, mixture, scale, sum, mixture)"},
    {"structures", structures, METH_NOARGS, "structures() -> dict: the numbers of structures by their names"},
    {"get_num_threads", get_num_threads, METH_NOARGS, "Returns the threads a call may use."},
    {"set_num_threads", set_num_threads, METH_O, "Sets how many threads a call may use; returns what it was."},
    {"share_openmp", FAST(share_openmp),
     "share_openmp(GOMP_parallel, omp_get_max_threads, omp_in_parallel): addresses of functions of a loaded library, "
     "or 0"},
    {"config", config, METH_NOARGS, "Returns what was built and chosen."},
    {"_path", sh_choose_path, METH_O,
     "_path(name): sets how maps with a cutoff are computed, auto, scan, lines or columns; returns what it was."},
    {NULL, NULL, 0, NULL},
};
