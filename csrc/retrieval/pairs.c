/* pairs.c: structures in which queries see some of the patterns: windows, block masks, random subsets.
 *
 * Queries go in order of their places, a few at a time. Where neighbours see the same stretches of patterns (windows,
 * blocks of some rows), a single-threaded product writes their scores, and each query reads the part that it sees. All
 * other pairs are scored one by one, by the canonical dot product, in place. A window that steps over patterns sees
 * only those of its place's residue class; there the patterns of a class are the rows of the product.
 *
 * Notes  1. Maps with a cutoff: scores of products filter as in scan.c, with the same slack; the candidates that remain
 *           are scored canonically and finished as everywhere, so the bits are those of every other path.
 *        2. A query whose list overflows (small beta) starts again with canonical scores alone, in a list that grows
 *           with the support: exact for any support.
 *        3. Maps with full support carry {scale, sum, mixture} as in streaming.c. Which queries go together follows
 *           from places alone, so the bits do not depend on the number of threads.
 */
#include "structure/structure.h"
#include "retrieval/job.h"

enum {
    ROWS = SH_PLACES,       /* queries that go together, at most */
    MIN_CAPACITY = 128,     /* candidates that a list holds, at least; SH_PAIR_CAPACITY at most */
    STOP_QUERIES = 8,       /* queries between two checks whether to stop, */
    STOP_NUMBERS = 1 << 20, /* and numbers of patterns */
};

typedef struct {
    sh_job *job;
    const sh_structure *s;
    const sh_structure_kind *kind;
    int by_stretch;    /* whether stretches of patterns are scored by products */
    int has_scattered; /* whether some pairs lie in no such stretch */
    int64_t step;      /* from one pattern of a residue class to the next; 1: there is one class */
    int64_t capacity;  /* of a list of candidates */
    sh_placed *placed; /* (N) the queries in order of residue class and place */
    int64_t *start;    /* (items + 1) the first query of each item */
    int64_t items;
} pair_scan;

/* --- which pairs there are ------------------------------------------------------------------------ */

static int64_t place_of(const pair_scan *p, sh_placed q) { return q.residue + p->step * q.place; }

/* Gives the next stretch of a query's patterns, *first counted in their residue class; returns how many, 0 at the end. */
static int64_t next_stretch(const pair_scan *p, sh_placed q, int64_t *cursor, int64_t *first) {
    const int64_t n = p->kind->next_stretch(p->s, p->job->memory->patterns.n, place_of(p, q), cursor, first);
    *first /= p->step;
    return n;
}

/* Returns the number of the first pair of a query that lies in no stretch. */
static int64_t after_stretches(const pair_scan *p, sh_placed q) {
    int64_t cursor = 0, first = 0;
    return p->by_stretch ? next_stretch(p, q, &cursor, &first) : 0;
}

/* The patterns that neighbours see, tile by tile: first .. first + n - 1 of a residue class, in a stretch up to `end`. */
typedef struct {
    int64_t cursor, first, n, end; /* cursor: of next_stretch */
} tile;

/* Goes on to the next tile of queries `low` to `high`; returns how many patterns it has, at most SH_TILE, 0 at the end. */
static int64_t next_tile(const pair_scan *p, sh_placed low, sh_placed high, tile *t) {
    int64_t cursor = t->cursor, last, length;
    if (!p->by_stretch) return 0;
    t->first += t->n;
    if (t->first == t->end) {
        if (next_stretch(p, low, &t->cursor, &t->first) == 0) return 0;
        length = next_stretch(p, high, &cursor, &last);
        t->end = last + length;
    }
    return t->n = sh_min(SH_TILE, t->end - t->first);
}

/* Gives the part of a tile that a query sees, from .. to - 1, counted from its first; from >= to: none of it. */
static void visible_part(const pair_scan *p, sh_placed q, const tile *t, int64_t *from, int64_t *to) {
    int64_t cursor = 0, first = 0;
    *from = 0;
    *to = t->n;
    if (!p->kind->one_stretch) return; /* in other kinds the queries of an item see the same stretches */
    const int64_t n = next_stretch(p, q, &cursor, &first);
    *from = sh_max(first - t->first, 0);
    *to = sh_min(first + n - t->first, t->n);
    assert(*from >= 0 && *to <= t->n);
}

/* --- the queries of an item ------------------------------------------------------------------------ */

typedef struct {
    char *queries, *scores, *mixture; /* (ROWS, d), (ROWS, SH_TILE), (ROWS, v) */
    char *tile_rows, *row;            /* of sh_tile_scores; (SH_PIECE) scores of pairs, then weights */
    void *bias, *scale, *value_scale; /* (SH_TILE) of a tile, where these do not lie side by side */
    sh_candidate *pairs, *lists;      /* (SH_PIECE), (ROWS, capacity) */
    double *z;                        /* (SH_PIECE) scores of pairs */
    sh_rows patterns, values;         /* of the residue class alone */
    sh_result_scratch results;
} item_scratch;

/* Lays out the scratch of one worker; returns its bytes (memory NULL: these alone). */
static size_t lay_out(const pair_scan *p, void *memory, item_scratch *s) {
    const sh_job *job = p->job;
    const int64_t gathered = p->step > 1 ? SH_TILE : 0;
    const size_t size = job->k->size;
    sh_workspace w = {memory, 0};
    s->queries = sh_take(&w, ROWS * job->memory->patterns.d, size);
    s->scores = sh_take(&w, p->by_stretch ? ROWS * SH_TILE : 0, size);
    s->mixture = sh_take(&w, ROWS * job->values->d, size);
    s->tile_rows = sh_take(&w, 1, sh_tile_row_bytes(job->memory));
    s->row = sh_take(&w, SH_PIECE, size);
    s->bias = sh_take(&w, gathered, size);
    s->scale = sh_take(&w, gathered, size);
    s->value_scale = sh_take(&w, gathered, size);
    s->pairs = sh_take(&w, SH_PIECE, sizeof *s->pairs);
    s->lists = sh_take(&w, job->map->cutoff ? ROWS * p->capacity : 0, sizeof *s->lists);
    s->z = sh_take(&w, SH_PIECE, sizeof *s->z);
    s->results = sh_take_result_scratch(job, &w, p->capacity);
    return w.used;
}

/* The next piece of pairs that lie in no stretch. It is found one piece ahead, so that its rows can be fetched while those
 * before are read. */
typedef struct {
    int64_t query, cursor,
        n; /* whose, by its number in the item; the pair after them; how many, 0: there are no more */
    int64_t position[SH_PIECE];
} piece;

/* Finds the next piece, of the same query or of one after it. */
static void next_piece(const pair_scan *p, const sh_placed *q, int64_t rows, piece *next) {
    int was_last = next->n > 0 && next->n < SH_PIECE;
    for (next->n = 0; next->n == 0; was_last = 1) {
        if (was_last && ++next->query == rows) return;
        if (was_last) next->cursor = after_stretches(p, q[next->query]);
        const int64_t place = place_of(p, q[next->query]);
        next->n = sh_next_pairs(p->s, p->job->memory->patterns.n, place, &next->cursor, next->position);
    }
}

/* Finds the first piece of query i, or of one after it. */
static void begin_pieces(const pair_scan *p, const sh_placed *q, int64_t rows, int64_t i, piece *next) {
    next->n = 0;
    next->query = p->has_scattered ? i : rows;
    if (!p->has_scattered) return;
    next->cursor = after_stretches(p, q[i]);
    next_piece(p, q, rows, next);
}

/* Scores the next pairs of query i of an item, in w->pairs; returns how many. */
static int64_t score_pairs(const pair_scan *p, const sh_placed *q, int64_t rows, int64_t i, piece *next,
                           const item_scratch *w) {
    enum { STEP = 4 }; /* rows scored while as many are fetched */
    const sh_job *job = p->job;
    const sh_rows *patterns = &job->memory->patterns, *values = job->values;
    if (job->map->cutoff || values->data == patterns->data) values = NULL; /* else every pair needs its value, too */
    if (next->query < i) begin_pieces(p, q, rows, i, next);
    if (next->query > i || next->n == 0) return 0;
    int64_t n = next->n;
    for (int64_t j = 0; j < n; j++) w->pairs[j].position = next->position[j];
    next_piece(p, q, rows, next);
    for (int64_t j = 0; j < n; j += STEP) {
        for (int64_t ahead = j; ahead < sh_min(j + STEP, next->n); ahead++) {
            sh_prefetch_row(patterns, next->position[ahead]);
            if (values) sh_prefetch_row(values, next->position[ahead]);
        }
        sh_score_fetched(job, q[i].query, w->pairs + j, sh_min(STEP, n - j), w->results.widened_row);
    }
    return n;
}

/* Counts the numbers of so many more pairs' patterns, and tells whether to stop, after every STOP_NUMBERS of them. */
static int stopped_after(const pair_scan *p, int64_t pairs, int64_t *numbers, sh_context *context) {
    *numbers += pairs * p->job->memory->patterns.d;
    if (*numbers < STOP_NUMBERS) return 0;
    *numbers = 0;
    return sh_stopped(context);
}

/* Returns the rows of one residue class. */
static sh_rows rows_of_class(const pair_scan *p, const sh_rows *rows, int64_t residue) {
    sh_rows of_class = *rows;
    of_class.data = (const char *)rows->data + residue * rows->stride;
    of_class.stride = rows->stride * p->step;
    of_class.n = residue < rows->n ? (rows->n - 1 - residue) / p->step + 1 : 0;
    return of_class;
}

/* Returns the biases or scales of a tile's patterns, side by side: where they lie, or copied to `to`. `terms` are
 * those of all patterns, NULL if there are none. */
static const void *terms_of_tile(const pair_scan *p, const void *terms, int64_t residue, int64_t first, int64_t n,
                                 void *to) {
    size_t size = p->job->k->size;
    if (!terms) return NULL;
    const char *from = (const char *)terms + (size_t)(residue + first * p->step) * size;
    if (p->step == 1) return from;
    for (int64_t j = 0; j < n; j++) memcpy((char *)to + (size_t)j * size, from + (size_t)(j * p->step) * size, size);
    return to;
}

/* Gathers the queries of an item and the rows of their residue class; returns the queries' places. */
static const sh_placed *gather(const pair_scan *p, int64_t item, item_scratch *w, int64_t *rows) {
    const sh_placed *q = p->placed + p->start[item];
    size_t bytes = (size_t)p->job->memory->patterns.d * p->job->k->size;
    *rows = p->start[item + 1] - p->start[item];
    assert(*rows >= 1 && *rows <= ROWS);
    for (int64_t i = 0; i < *rows; i++)
        memcpy(w->queries + (size_t)i * bytes, sh_tile_query(p->job, q[i].query), bytes);
    w->patterns = rows_of_class(p, &p->job->memory->patterns, q->residue);
    w->values = rows_of_class(p, p->job->values, q->residue);
    return q;
}

/* Scores a tile, one row a query. Returns the length of a row, with which rows do not share places in the cache. */
static int64_t score_tile(const sh_job *job, const item_scratch *w, int64_t rows, int64_t first, int64_t n) {
    int64_t ld = sh_min(SH_TILE, (n + 15) / 16 * 16);
    sh_tile_scores(job, &w->patterns, w->queries, rows, first, n, w->scores, ld, w->tile_rows);
    return ld;
}

/* Answers query i in order of place by canonical scores of all its pairs, in a list that grows (note 2). */
static sh_status answer_canonically(void *pointer, int64_t i, void *scratch, sh_context *context) {
    (void)scratch;
    const pair_scan *p = pointer;
    sh_job *job = p->job;
    const sh_placed q = p->placed[i];
    int64_t n = 0, cursor = 0, found, position[SH_PIECE];
    double min_score = -INFINITY;
    sh_long_list l = {0};
    sh_status status = SH_NO_MEMORY;
    if (!sh_lengthen_list(job, context, &l, 0, MIN_CAPACITY)) goto done;
    while ((found = sh_next_pairs(p->s, job->memory->patterns.n, place_of(p, q), &cursor, position)) > 0) {
        if (n + SH_PIECE > l.capacity) {
            if (job->map->cutoff) {
                min_score = fmax(min_score, sh_min_score(job, q.query, l.list, n, l.scratch.z, /* slack */ 0));
                n = sh_keep_above(job, q.query, l.list, n, min_score, /* slack */ 0);
            }
            if (2 * n > l.capacity && !sh_lengthen_list(job, context, &l, n, 0)) goto done;
        }
        assert(n + found <= l.capacity);
        sh_candidate *c = l.list + n;
        for (int64_t j = 0; j < found; j++) c[j].position = position[j];
        sh_score_canonically(job, q.query, c, found, l.scratch.widened_row);
        for (int64_t j = 0; j < found; j++)
            if (c[j].score >= min_score) l.list[n++] = c[j];
        if (sh_stopped(context)) {
            status = SH_INTERRUPTED;
            goto done;
        }
    }
    sh_sort_by_position(l.list, n);
    status = sh_store_results(job, q.query, l.list, n, l.scratch, context);
done:
    sh_release_list(context, &l);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}

/* Answers the queries of one item: maps with a cutoff. */
static sh_status filter_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    const pair_scan *p = pointer;
    sh_job *job = p->job;
    const sh_memory *m = job->memory;
    const sh_kernels *k = job->k;
    item_scratch w;
    lay_out(p, scratch, &w);
    int64_t rows, n, from, to;
    tile t = {0};
    const sh_placed *q = gather(p, item, &w, &rows);
    sh_candidate_list lists[ROWS];
    for (int64_t i = 0; i < rows; i++)
        lists[i] = (sh_candidate_list){
            .capacity = p->capacity, .min_score = -INFINITY, .best = -INFINITY, .list = w.lists + i * p->capacity};
    while ((n = next_tile(p, q[0], q[rows - 1], &t)) > 0) {
        int64_t ld = score_tile(job, &w, rows, t.first, n);
        const char *scales = terms_of_tile(p, m->tile_scale, q->residue, t.first, n, w.scale);
        const char *biases = terms_of_tile(p, job->plan.tile_bias, q->residue, t.first, n, w.bias);
        for (int64_t i = 0; i < rows; i++) {
            sh_candidate_list *l = &lists[i];
            visible_part(p, q[i], &t, &from, &to);
            if (l->overflows || from >= to) continue;
            void *s = sh_at(k, w.scores, i * ld + from);
            double best = k->affine_max(s, scales ? sh_at(k, scales, from) : NULL,
                                        biases ? sh_at(k, biases, from) : NULL, sh_shift(job, q[i].query), to - from);
            if (!isfinite(best)) return sh_fail(context, SH_NOT_FINITE, "queries", q[i].query);
            if (best < l->min_score) continue;
            sh_raise_min_score(job, q[i].query, l, best);
            for (int64_t j = from; j < to && sh_make_room(job, q[i].query, l, SH_PIECE, w.results.z); j += SH_PIECE) {
                sh_candidate *c = l->list + l->n;
                int64_t found =
                    k->collect(sh_at(k, w.scores, i * ld + j), sh_min(SH_PIECE, to - j), l->min_score, t.first + j, c);
                for (int64_t o = 0; o < found; o++) c[o].position = q->residue + p->step * c[o].position;
                l->n += found;
                assert(l->n <= l->capacity);
            }
        }
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    piece next;
    int64_t numbers = 0;
    begin_pieces(p, q, rows, 0, &next);
    for (int64_t i = 0; i < rows; i++) {
        sh_candidate_list *l = &lists[i];
        int64_t query = q[i].query;
        while (!l->overflows && (n = score_pairs(p, q, rows, i, &next, &w)) > 0) {
            double best = -INFINITY;
            for (int64_t j = 0; j < n; j++) best = fmax(best, w.pairs[j].score);
            sh_raise_min_score(job, query, l, best);
            if (!sh_make_room(job, query, l, SH_PIECE, w.results.z)) break;
            for (int64_t j = 0; j < n; j++)
                if (w.pairs[j].score >= l->min_score) l->list[l->n++] = w.pairs[j];
            if (stopped_after(p, n, &numbers, context)) return SH_INTERRUPTED;
        }
        sh_status status;
        if (l->overflows) {
            status = answer_canonically(pointer, p->start[item] + i, NULL, context);
        } else {
            sh_compact(job, query, l, w.results.z);
            sh_sort_by_position(l->list, l->n);
            sh_score_canonically(job, query, l->list, l->n, w.results.widened_row);
            status = sh_store_results(job, query, l->list, l->n, w.results, context);
        }
        if (status != SH_OK) return status;
        if (i % STOP_QUERIES == 0 && sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

/* Adds weights[j] x value c[j].position to a mixture; weights become those of the rows as stored. */
static void mix_pairs(const sh_job *job, void *mixture, void *weights, const sh_candidate *c, int64_t n,
                      void *widened_rows) {
    const sh_kernels *k = job->k;
    int32_t index[SH_PIECE];
    for (int64_t j = 0; j < n; j++) {
        index[j] = (int32_t)c[j].position;
        if (!job->plan.value_scale) continue;
        k->multiply(sh_at(k, weights, j), sh_at(k, job->plan.tile_value_scale, c[j].position), 1);
    }
    sh_mix_selected(k, job->values, weights, index, n, mixture, widened_rows);
}

/* Answers the queries of one item: maps with full support. */
static sh_status mix_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    const pair_scan *p = pointer;
    sh_job *job = p->job;
    const sh_memory *m = job->memory;
    const sh_kernels *k = job->k;
    item_scratch w;
    lay_out(p, scratch, &w);
    int64_t rows, n, from, to, width = job->values->d, support[ROWS] = {0};
    tile t = {0};
    const sh_placed *q = gather(p, item, &w, &rows);
    sh_job of_class = *job;
    of_class.values = &w.values;
    of_class.plan.value_centre = NULL; /* rows taken one by one are mixed as they are */
    double scale[ROWS], sum[ROWS] = {0}, parameter = job->model.parameter;
    for (int64_t i = 0; i < rows; i++) scale[i] = NAN;
    if (job->out.states) memset(w.mixture, 0, (size_t)(rows * width) * k->size);
    while ((n = next_tile(p, q[0], q[rows - 1], &t)) > 0) {
        int64_t ld = score_tile(job, &w, rows, t.first, n);
        const char *scales = terms_of_tile(p, m->tile_scale, q->residue, t.first, n, w.scale);
        const char *biases = terms_of_tile(p, job->plan.tile_bias, q->residue, t.first, n, w.bias);
        const char *value_scales = terms_of_tile(p, job->plan.tile_value_scale, q->residue, t.first, n, w.value_scale);
        for (int64_t i = 0; i < rows; i++) {
            char *row = sh_at(k, w.scores, i * ld);
            visible_part(p, q[i], &t, &from, &to);
            if (from >= to) from = to = n;
            void *s = sh_at(k, row, from);
            memset(row, 0, (size_t)from * k->size);
            memset(sh_at(k, row, to), 0, (size_t)(n - to) * k->size);
            if (from == to) continue;
            double best = k->affine_max(s, scales ? sh_at(k, scales, from) : NULL,
                                        biases ? sh_at(k, biases, from) : NULL, 0, to - from);
            if (!isfinite(best)) return sh_fail(context, SH_NOT_FINITE, "queries", q[i].query);
            void *mixture = job->out.states ? sh_at(k, w.mixture, i * width) : NULL;
            double row_scale = job->map->row_scale(k, s, to - from), beta = sh_beta(job, q[i].query);
            sh_raise_scale(job, q[i].query, &scale[i], &sum[i], mixture, row_scale);
            sum[i] += job->map->row_weights(k, s, to - from, beta, parameter, scale[i]);
            support[i] += to - from;
            if (value_scales) k->multiply(s, sh_at(k, value_scales, from), to - from);
        }
        if (job->out.states)
            sh_tile_mix(&of_class, w.scores, ld, rows, t.first, n, 0, width, 1, w.mixture, width, w.tile_rows);
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    piece next;
    int64_t numbers = 0;
    begin_pieces(p, q, rows, 0, &next);
    for (int64_t i = 0; i < rows; i++) {
        int64_t query = q[i].query;
        void *mixture = job->out.states ? sh_at(k, w.mixture, i * width) : NULL;
        double beta = sh_beta(job, query);
        if (sh_needs_canonical_scores(job, query)) {
            sh_status status = answer_canonically(pointer, p->start[item] + i, NULL, context);
            if (status != SH_OK) return status;
            continue;
        }
        while ((n = score_pairs(p, q, rows, i, &next, &w)) > 0) {
            for (int64_t j = 0; j < n; j++) w.z[j] = w.pairs[j].score - sh_shift(job, query); /* as in tiles */
            k->from_double(w.row, w.z, n);
            sh_raise_scale(job, query, &scale[i], &sum[i], mixture, job->map->row_scale(k, w.row, n));
            sum[i] += job->map->row_weights(k, w.row, n, beta, parameter, scale[i]);
            support[i] += n;
            if (mixture) mix_pairs(job, mixture, w.row, w.pairs, n, w.tile_rows);
            if (stopped_after(p, n, &numbers, context)) return SH_INTERRUPTED;
        }
        if (mixture) {
            k->multiply_by(mixture, sum[i] != 0 ? 1 / sum[i] : 0, width);
            sh_note_states_if_not_finite(job, mixture, 1);
            memcpy(sh_at(k, job->out.states, query * width), mixture, (size_t)width * k->size);
        }
        if (job->out.support_size) job->out.support_size[query] = support[i];
        if (job->out.energy) {
            double conjugate = scale[i] + sh_shift(job, query) + log(sum[i]) / beta;
            job->out.energy[query] = support[i] ? sh_energy_of(job, query, conjugate) : sh_half_square(job, query);
        }
        if (i % STOP_QUERIES == 0 && sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

/* Divides the queries, in order of place, into items: neighbours that see much the same patterns. */
static void divide(pair_scan *p) {
    const int64_t n = p->job->queries.n;
    sh_in_order(p->s, p->step, n, p->placed);
    for (int64_t i = 0, begun = 0; i < n; i++) {
        const sh_placed q = p->placed[i], first = p->placed[begun]; /* begun: of the item so far */
        const int apart =
            q.residue != first.residue || p->kind->overlap(p->s, place_of(p, first), place_of(p, q)) == SH_APART;
        assert(i == 0 || q.residue > p->placed[i - 1].residue ||
               (q.residue == p->placed[i - 1].residue && q.place >= p->placed[i - 1].place));
        if (i > 0 && i - begun < ROWS && !(p->by_stretch && apart)) continue;
        begun = i;
        p->start[p->items++] = i;
    }
    p->start[p->items] = n;
}

/* Tells whether products can step from one pattern of a residue class to the next: their strides are 32-bit numbers. */
static int can_step(const sh_job *job, int64_t step) {
    int64_t longest = sh_max(1, sh_max(job->memory->patterns.stride, job->values->stride));
    return step == 1 || step <= INT32_MAX / longest;
}

sh_status sh_answer_pairs(sh_job *job) {
    sh_context *context = job->context;
    const sh_structure *s = job->queries.structure;
    int64_t n = job->queries.n;
    const char *fault = job->goal > SH_GOAL_WEIGHTS ? "structure" : sh_structure_fault(s, n, job->memory->patterns.n);
    if (fault) return sh_fail(context, SH_BAD_ARGUMENT, fault, 0);
    pair_scan p = {.job = job, .s = s, .kind = sh_kind_of(s), .step = 1};
    p.by_stretch = p.kind->next_stretch && !sh_is_per_query(s) && can_step(job, sh_step(s));
    p.has_scattered = !p.by_stretch || (p.kind->one_stretch && s->column_n > 0);
    if (p.by_stretch) p.step = sh_step(s);
    p.capacity = sh_max(MIN_CAPACITY, sh_min(SH_PAIR_CAPACITY, sh_most_pairs(s) + SH_PIECE));
    p.placed = sh_allocate(context, n, sizeof *p.placed);
    p.start = sh_allocate(context, n + 1, sizeof *p.start);
    sh_status status = SH_NO_MEMORY;
    if (p.placed && p.start) {
        divide(&p);
        if (job->goal == SH_GOAL_WEIGHTS && !job->map->cutoff)
            status = sh_for_each(context, n, 0, answer_canonically, &p);
        else
            status = sh_for_each(context, p.items, lay_out(&p, NULL, &(item_scratch){0}),
                                 job->map->cutoff ? filter_item : mix_item, &p);
    }
    sh_release(context, p.placed);
    sh_release(context, p.start);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}
