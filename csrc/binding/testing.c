/* testing.c: hooks by which tests make allocations fail, count them, and set the available memory. Only builds with
 * SH_TESTING have it (SPARSEHOPFIELD_TESTING=1 in setup.py); in the others the core takes memory from malloc. */
#define _GNU_SOURCE
#include <time.h>
#include "binding/binding.h"
#ifdef SH_TESTING
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

static _Atomic int64_t countdown = -1, made, live, most;

/* Every block begins with its size. */
typedef union {
    size_t bytes;
    max_align_t alignment;
} header;

void *sh_test_allocate(void *user, size_t bytes) {
    (void)user;
    atomic_fetch_add(&made, 1);
    if (atomic_load(&countdown) >= 0 && atomic_fetch_sub(&countdown, 1) == 0) return NULL;
    header *block = bytes < SIZE_MAX - sizeof *block ? malloc(bytes + sizeof *block) : NULL;
    if (!block) return NULL;
    block->bytes = bytes;
    const int64_t now = atomic_fetch_add(&live, (int64_t)bytes) + (int64_t)bytes;
    for (int64_t before = atomic_load(&most); now > before;)
        if (atomic_compare_exchange_weak(&most, &before, now)) break;
    return block + 1;
}

void sh_test_release(void *user, void *block) {
    (void)user;
    header *h = (header *)block - 1;
    atomic_fetch_sub(&live, (int64_t)h->bytes);
    free(h);
}

static PyObject *fail_allocation(PyObject *module, PyObject *argument) {
    (void)module;
    long long n = PyLong_AsLongLong(argument);
    if (n == -1 && PyErr_Occurred()) return NULL;
    atomic_store(&countdown, n);
    return PyLong_FromLongLong(atomic_exchange(&made, 0));
}

static PyObject *allocated(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    const int64_t now = atomic_load(&live);
    return PyLong_FromLongLong(atomic_exchange(&most, now) - now);
}

static PyObject *available_memory(PyObject *module, PyObject *root) {
    (void)module;
    PyObject *bytes;
    if (!PyUnicode_FSConverter(root, &bytes)) return NULL;
    int64_t available = sh_available_memory_under(PyBytes_AsString(bytes));
    Py_DECREF(bytes);
    return PyLong_FromLongLong(available);
}

static PyObject *set_available_memory(PyObject *module, PyObject *argument) {
    (void)module;
    long long n = PyLong_AsLongLong(argument);
    if (n == -1 && PyErr_Occurred()) return NULL;
    sh_set_available_memory(n);
    return Py_NewRef(Py_None);
}

PyMethodDef sh_test_operations[] = {
    {"_fail_allocation", fail_allocation, METH_O,
     "_fail_allocation(n): the n-th following allocation fails (n < 0: none); returns how many were made."},
    {"_allocated", allocated, METH_NOARGS,
     "_allocated(): the most bytes at a time since this was last asked, beside those still there."},
    {"_available_memory", available_memory, METH_O,
     "_available_memory(root): bytes that may still be taken; root stands before the paths of the system's files."},
    {"_set_available_memory", set_available_memory, METH_O,
     "_set_available_memory(n): so many bytes are available from now on (n < 0: as many as are)."},
    {NULL, NULL, 0, NULL},
};
#endif
