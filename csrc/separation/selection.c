/* selection.c: selection, sizes of supports and sorting, in place and without allocation. */
#include "separation/separation.h"
#include "runtime/runtime.h"

/* Tells whether a comes before b among the best: a larger score, then the lower position. */
static inline int better(sh_candidate a, sh_candidate b) {
    return a.score > b.score || (a.score == b.score && a.position < b.position);
}

static inline void swap(sh_candidate *a, sh_candidate *b) {
    sh_candidate t = *a;
    *a = *b;
    *b = t;
}

int64_t sh_select_top(sh_candidate *c, int64_t n, int64_t k) {
    if (n <= k) return n;
    int64_t low = 0, high = n - 1; /* Hoare's selection: the k-th best is between them */
    while (low < high) {
        int64_t middle = low + (high - low) / 2; /* median of three, so sorted rows stay linear */
        if (better(c[middle], c[low])) swap(&c[middle], &c[low]);
        if (better(c[high], c[low])) swap(&c[high], &c[low]);
        if (better(c[high], c[middle])) swap(&c[high], &c[middle]);
        sh_candidate pivot = c[middle];
        int64_t i = low, j = high;
        while (i <= j) {
            while (better(c[i], pivot)) i++;
            while (better(pivot, c[j])) j--;
            if (i <= j) swap(&c[i++], &c[j--]);
        }
        if (k - 1 <= j)
            high = j;
        else if (k - 1 >= i)
            low = i;
        else
            break;
    }
    return k;
}

int64_t sh_support_size(int (*leave_weight)(const void *pointer, const double *z, int64_t k), const void *pointer,
                        const double *z, int64_t n) {
    int64_t inside = 1, outside = n + 1;
    for (int64_t step = 1; outside - inside > 1 && !sh_pass_stopped(n);) {
        const int64_t k = outside - inside > 2 * step ? outside - step : inside + (outside - inside) / 2;
        if (leave_weight(pointer, z, k - 1)) {
            inside = k;
            step = n; /* by bisection from here on */
        } else {
            outside = k;
            step *= 2;
        }
    }
    return inside;
}

double sh_kth_largest(double *z, int64_t n, int64_t k) {
    int64_t low = 0, high = n - 1;
    while (low < high) { /* as above */
        double a = z[low], b = z[low + (high - low) / 2], c = z[high];
        double pivot = a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);
        int64_t i = low, j = high;
        while (i <= j) {
            while (z[i] > pivot) i++;
            while (pivot > z[j]) j--;
            if (i <= j) {
                double t = z[i];
                z[i++] = z[j];
                z[j--] = t;
            }
        }
        if (k - 1 <= j)
            high = j;
        else if (k - 1 >= i)
            low = i;
        else
            break;
    }
    return z[k - 1];
}

/* Moves number `root` of a heap, the smallest at the front, down to where it belongs. */
static void sift(double *z, int64_t root, int64_t n) {
    double x = z[root];
    for (int64_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && z[child + 1] < z[child]) child++;
        if (!(z[child] < x)) break;
        z[root] = z[child];
    }
    z[root] = x;
}

static void sort_heap(double *z, int64_t n) {
    enum { CHECK_EVERY = 1 << 16 }; /* numbers between two checks whether to stop */
    for (int64_t i = n / 2; i-- > 0;) sift(z, i, n);
    for (int64_t last = n - 1; last > 0; last--) {
        if (last % CHECK_EVERY == 0 && sh_pass_stopped(last)) return;
        double x = z[0];
        z[0] = z[last];
        z[last] = x;
        sift(z, 0, last);
    }
}

static void sort_by_insertion(double *z, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        double x = z[i];
        int64_t j = i;
        for (; j > 0 && z[j - 1] < x; j--) z[j] = z[j - 1];
        z[j] = x;
    }
}

enum { FEW = 32, BUCKETS = 1024 };

/* Sorts at most BUCKETS numbers: each goes to a bucket of about one number. Where many share one, it is sorted in the same
 * way, `levels` times, and then by a heap. */
static void sort_by_buckets(double *z, int64_t n, int levels) {
    double most = z[0], least = z[0], copy[BUCKETS];
    uint16_t bucket[BUCKETS], end[BUCKETS + 1] = {0};
    for (int64_t i = 0; i < n; i++) {
        most = z[i] > most ? z[i] : most;
        least = z[i] < least ? z[i] : least;
    }
    const double scale = (double)(n - 1) / (most - least);
    if (!levels || !(scale > 0 && (most - least) * scale < BUCKETS)) { /* also if a number is NaN or infinite */
        sort_heap(z, n);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const double place = (most - z[i]) * scale; /* falls with z, however it is rounded */
        bucket[i] = (uint16_t)(place < (double)(n - 1) ? place : (double)(n - 1));
        copy[i] = z[i];
    }
    for (int64_t i = 0; i < n; i++) end[bucket[i] + 1]++;
    int64_t largest = 0;
    for (int64_t b = 1; b <= n; b++) {
        largest = end[b] > largest ? end[b] : largest;
        end[b] = (uint16_t)(end[b] + end[b - 1]);
    }
    for (int64_t i = 0; i < n; i++) z[end[bucket[i]]++] = copy[i]; /* so each comes to hold its bucket's end */
    for (int64_t b = 0, start = 0; largest > FEW && b < n; start = end[b++])
        if (end[b] - start > FEW) sort_by_buckets(z + start, end[b] - start, levels - 1);
    sort_by_insertion(z, n);
}

void sh_sort_descending(double *z, int64_t n) {
    for (int levels = 64; n > BUCKETS; levels--) { /* Hoare's partition; pieces of at most BUCKETS are sorted as such */
        if (levels == 0 || sh_pass_stopped(n)) {
            sort_heap(z, n);
            return;
        }
        const double a = z[0], b = z[n / 2], c = z[n - 1];
        const double pivot = a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);
        int64_t i = 0, j = n - 1;
        while (i <= j) {
            while (z[i] > pivot) i++;
            while (pivot > z[j]) j--;
            if (i <= j) {
                const double t = z[i];
                z[i++] = z[j];
                z[j--] = t;
            }
        }
        if (j + 1 < n - i) { /* the smaller part first */
            sh_sort_descending(z, j + 1);
            z += i;
            n -= i;
        } else {
            sh_sort_descending(z + i, n - i);
            n = j + 1;
        }
    }
    if (n <= FEW)
        sort_by_insertion(z, n);
    else
        sort_by_buckets(z, n, 2);
}

int sh_compare_numbers(const void *a, const void *b) {
    int64_t i = *(const int64_t *)a, j = *(const int64_t *)b;
    return (i > j) - (i < j);
}
