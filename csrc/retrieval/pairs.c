/* pairs.c: structures that look at some of the pairs: windows, block masks, random subsets. Work follows the pairs.
 *
 * Queries go in order of their places, a few at a time. Where neighbours look at the same stretches of patterns (spans:
 * windows, blocks of some rows), a single-threaded product writes their scores, and each query reads
 * its own part of them. All other pairs are taken one by one, by the canonical dot product, in place.
 *
 * Notes  1. Maps with a window: scores of products filter as in scan.c, with the same slack; what is left is scored
 *           canonically and finished as everywhere, so the bits are those of any other way to the same pairs.
 *        2. A list that overflows (small beta) is made again, longer, of canonical scores alone: exact for any support.
 *        3. Maps with full support carry {scale, sum, mixture} as in streaming.c. Which queries go together follows from
 *           places alone, so the bits do not depend on the number of threads.
 */
#include "structure/structure.h"
#include "retrieval/job.h"
#include <math.h>
#include <string.h>

enum {
    ROWS = 64,     /* queries that go together, at most */
    SHORT = 128,   /* candidates a list holds: at least, */
    LONG = 1024,   /* and at most */
    THIN = 4,      /* blocks of fewer rows are no spans */
    ASKED = 8,     /* queries between two looks at whether to stop, */
    READ = 1 << 20 /* and numbers of patterns */
};

typedef struct {
    sh_job *job;
    const sh_structure *s;
    int spans;         /* whether there are any */
    int64_t apart;     /* of the patterns of a lane; 1: there is one lane */
    int64_t room;      /* of a list */
    sh_caller *visits; /* (N) in order of place */
    int64_t *start;    /* (items + 1) of each item its first sh_caller */
    int64_t items;
} looking;

/* --- which pairs there are ------------------------------------------------------------------------ */

static int64_t place_of(const looking *l, sh_caller v) { return v.lane + l->apart * v.place; }

/* The number of the first pair of a query that lies in no span. */
static int64_t after_spans(const looking *l, sh_caller v) {
    if (!l->spans) return 0;
    if (l->s->pairs == SH_PAIRS_BLOCKS) return INT64_MAX;
    int64_t least, most;
    sh_window_steps(l->s, l->job->memory->patterns.n, place_of(l, v), &least, &most);
    return most - least + 1;
}

/* The next span of queries from place `low` to `high`, at most SH_TILE of a lane's patterns; returns how many, 0 at the
 * end. */
static int64_t next_span(const looking *l, int64_t patterns, int64_t low, int64_t high, int64_t *at, int64_t *first) {
    const sh_structure *s = l->s;
    if (!l->spans) return 0;
    if (s->pairs == SH_PAIRS_WINDOW) {
        *first = sh_max(low - s->width, 0) + *at;
        int64_t end = s->causal ? high + 1 : sh_min(patterns, high + s->width + 1);
        int64_t n = sh_max(0, sh_min(SH_TILE, end - *first));
        *at += n;
        return n;
    }
    int64_t row = low / s->rows, block = s->start[row] + *at / s->columns, within = *at % s->columns;
    if (block >= s->start[row + 1]) return 0;
    *first = s->column[block] * s->columns + within;
    int64_t n = s->columns - within;
    for (; n < SH_TILE && block + 1 < s->start[row + 1] && s->column[block + 1] == s->column[block] + 1; block++)
        n += s->columns;
    n = sh_min(n, SH_TILE);
    *at += n;
    return n;
}

/* The part of a span that a query looks at, from .. to - 1, counted from its first. */
static void part_of_span(const sh_structure *s, int64_t place, int64_t first, int64_t n, int64_t *from, int64_t *to) {
    *from = 0;
    *to = n;
    if (s->pairs != SH_PAIRS_WINDOW) return;
    *from = sh_max(place - s->width - first, 0);
    *to = sh_min((s->causal ? place : place + s->width) + 1 - first, n);
}

/* --- some queries together ------------------------------------------------------------------------ */

typedef struct {
    int64_t n;
    double floor, best; /* as in scan.c */
    int wide;
    sh_candidate *list;
} tracker;

typedef struct {
    char *queries, *scores, *mixture, *tile_rows, *row;
    void *bias, *scale, *value_scale; /* of a lane's span */
    sh_candidate *pairs, *lists;
    double *z;
    sh_rows patterns, values; /* of the lane alone */
    sh_result_space finish;
} space;

/* Lays out the scratch memory of one worker; returns its size. */
static size_t lay_out(const looking *l, void *block, space *s) {
    const sh_job *job = l->job;
    const int64_t lane = l->apart > 1 ? SH_TILE : 0;
    const size_t size = job->k->size;
    sh_workspace w = {block, 0};
    s->queries = sh_take(&w, ROWS * job->memory->patterns.d, size);
    s->scores = sh_take(&w, l->spans ? ROWS * SH_TILE : 0, size);
    s->mixture = sh_take(&w, ROWS * job->values->d, size);
    s->tile_rows = sh_take(&w, 1, sh_tile_row_bytes(job->memory));
    s->row = sh_take(&w, SH_PIECE, size);
    s->bias = sh_take(&w, lane, size);
    s->scale = sh_take(&w, lane, size);
    s->value_scale = sh_take(&w, lane, size);
    s->pairs = sh_take(&w, SH_PIECE, sizeof *s->pairs);
    s->lists = sh_take(&w, job->map->window ? ROWS * l->room : 0, sizeof *s->lists);
    s->z = sh_take(&w, SH_PIECE, sizeof *s->z);
    s->finish = sh_take_result_space(job, &w, l->room);
    return w.used;
}

/* The pairs beyond spans, piece by piece and one piece ahead, so that rows are on their way while others are read. */
typedef struct {
    int64_t i, at, n; /* the piece at hand is of visit i, which goes on at pair `at`; n = 0: there are no more */
    int64_t position[SH_PIECE];
} ahead;

static void step_ahead(const looking *l, const sh_caller *v, int64_t rows, ahead *a) {
    const sh_job *job = l->job;
    int64_t patterns = job->memory->patterns.n;
    while ((a->n = sh_next_pairs(l->s, patterns, place_of(l, v[a->i]), &a->at, a->position)) == 0 && ++a->i < rows)
        a->at = after_spans(l, v[a->i]);
}

static void begin_at(const looking *l, const sh_caller *v, int64_t rows, int64_t i, ahead *a) {
    a->i = i;
    a->at = after_spans(l, v[i]);
    step_ahead(l, v, rows, a);
}

/* The scores of the next pairs of visit i, in w->pairs; returns how many. */
static int64_t score_pairs(const looking *l, const sh_caller *v, int64_t rows, int64_t i, ahead *a, const space *w) {
    enum { STEP = 4 };
    const sh_job *job = l->job;
    const sh_rows *patterns = &job->memory->patterns, *mixed = job->values->data == patterns->data ? NULL : job->values;
    if (a->i < i) begin_at(l, v, rows, i, a);
    if (a->i > i || a->n == 0) return 0;
    int64_t n = a->n;
    for (int64_t j = 0; j < n; j++) w->pairs[j].position = a->position[j];
    step_ahead(l, v, rows, a);
    for (int64_t j = 0; j < n; j += STEP) {
        for (int64_t next = j; next < sh_min(j + STEP, a->n); next++) {
            sh_prefetch_row(patterns, a->position[next]);
            if (mixed && !job->map->window) sh_prefetch_row(mixed, a->position[next]);
        }
        sh_rescore_prefetched(job, v[i].query, w->pairs + j, sh_min(STEP, n - j), w->finish.buffer);
    }
    return n;
}

/* whether to stop, asked after every READ numbers */
static int stopped_at(const looking *l, int64_t pairs, int64_t *read, sh_context *context) {
    *read += pairs * l->job->memory->patterns.d;
    if (*read < READ) return 0;
    *read = 0;
    return sh_stopped(context);
}

/* every apart-th of some rows, from number `lane` on */
static sh_rows rows_of_lane(const looking *l, const sh_rows *rows, int64_t lane) {
    sh_rows some = *rows;
    some.data = (const char *)rows->data + lane * rows->stride;
    some.stride = rows->stride * l->apart;
    some.n = lane < rows->n ? (rows->n - 1 - lane) / l->apart + 1 : 0;
    return some;
}

/* the numbers of a span's patterns, next to each other; NULL if there are none */
static const void *numbers_of_span(const looking *l, const void *all, int64_t lane, int64_t first, int64_t n,
                                   void *out) {
    size_t size = l->job->k->size;
    if (!all) return NULL;
    const char *from = (const char *)all + (size_t)(lane + first * l->apart) * size;
    if (l->apart == 1) return from;
    for (int64_t j = 0; j < n; j++) memcpy((char *)out + (size_t)j * size, from + (size_t)(j * l->apart) * size, size);
    return out;
}

static const sh_caller *gather(const looking *l, int64_t item, space *w, int64_t *rows) {
    const sh_caller *v = l->visits + l->start[item];
    size_t bytes = (size_t)l->job->memory->patterns.d * l->job->k->size;
    *rows = l->start[item + 1] - l->start[item];
    for (int64_t i = 0; i < *rows; i++)
        memcpy(w->queries + (size_t)i * bytes, sh_tile_query(l->job, v[i].query), bytes);
    w->patterns = rows_of_lane(l, &l->job->memory->patterns, v->lane);
    w->values = rows_of_lane(l, l->job->values, v->lane);
    return v;
}

/* Scores of a span, one row a query; a row's length is such that rows do not share their place in the cache. */
static int64_t score_span(const sh_job *job, const space *w, int64_t rows, int64_t first, int64_t n) {
    int64_t ld = sh_min(SH_TILE, (n + 15) / 16 * 16);
    sh_tile_scores(job, &w->patterns, w->queries, rows, first, n, w->scores, ld, w->tile_rows);
    return ld;
}

static void compact(const sh_job *job, int64_t query, tracker *t, double *z, double slack) {
    if (t->n == 0) return;
    t->floor = fmax(t->floor, sh_min_score(job, query, t->list, t->n, z, slack));
    t->n = sh_keep_above(job, query, t->list, t->n, t->floor, slack);
}

/* a best score of these pairs raises the floor (scan.c, note 2) */
static void see(const sh_job *job, int64_t query, tracker *t, double best) {
    double slack = job->plan.slack[query], reach = job->map->window(job->model.parameter) / sh_beta(job, query);
    if (!(best - slack > t->best)) return;
    t->best = best - slack;
    t->floor = fmax(t->floor, t->best - reach - slack - 0x1p-50 * (fabs(t->best) + reach));
}

/* room for SH_PIECE more; 0 if there is none */
static int make_room(const looking *l, int64_t query, tracker *t, double *z) {
    if (t->n <= l->room - SH_PIECE) return 1;
    compact(l->job, query, t, z, l->job->plan.slack[query]);
    t->wide = t->n > l->room - SH_PIECE;
    return !t->wide;
}

/* One query by canonical scores of all its pairs, in a list that grows with the support (note 2). */
static sh_status settle_alone(const looking *l, sh_caller v, sh_context *context) {
    sh_job *job = l->job;
    int64_t n = 0, at = 0, found, position[SH_PIECE];
    double floor = -INFINITY;
    sh_long_list all = {0};
    sh_status status = SH_NO_MEMORY;
    if (!sh_lengthen_list(job, context, &all, 0, SHORT)) goto done;
    while ((found = sh_next_pairs(l->s, job->memory->patterns.n, place_of(l, v), &at, position)) > 0) {
        if (n + SH_PIECE > all.capacity) {
            if (job->map->window) {
                floor = fmax(floor, sh_min_score(job, v.query, all.list, n, all.space.z, 0));
                n = sh_keep_above(job, v.query, all.list, n, floor, 0);
            }
            if (2 * n > all.capacity && !sh_lengthen_list(job, context, &all, n, 0)) goto done;
        }
        sh_candidate *c = all.list + n;
        for (int64_t j = 0; j < found; j++) c[j].position = position[j];
        sh_rescore(job, v.query, c, found, all.space.buffer);
        for (int64_t j = 0; j < found; j++)
            if (c[j].score >= floor) all.list[n++] = c[j];
        if (sh_stopped(context)) {
            status = SH_INTERRUPTED;
            goto done;
        }
    }
    sh_sort_by_position(all.list, n);
    status = sh_store_results(job, v.query, all.list, n, all.space, context);
done:
    sh_release_list(context, &all);
    return status == SH_NO_MEMORY ? sh_fail(context, status, NULL, 0) : status;
}

static sh_status alone_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)scratch;
    const looking *l = pointer;
    return settle_alone(l, l->visits[item], context);
}

/* maps with a window */
static sh_status filter_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    const looking *l = pointer;
    sh_job *job = l->job;
    const sh_memory *m = job->memory;
    const sh_kernels *k = job->k;
    space w;
    lay_out(l, scratch, &w);
    int64_t rows, at = 0, first, n, from, to;
    const sh_caller *v = gather(l, item, &w, &rows);
    tracker t[ROWS];
    for (int64_t i = 0; i < rows; i++)
        t[i] = (tracker){.floor = -INFINITY, .best = -INFINITY, .list = w.lists + i * l->room};
    while ((n = next_span(l, w.patterns.n, v[0].place, v[rows - 1].place, &at, &first)) > 0) {
        int64_t ld = score_span(job, &w, rows, first, n);
        const char *scales = numbers_of_span(l, m->tile_scale, v->lane, first, n, w.scale);
        const char *biases = numbers_of_span(l, job->plan.tile_bias, v->lane, first, n, w.bias);
        for (int64_t i = 0; i < rows; i++) {
            part_of_span(l->s, v[i].place, first, n, &from, &to);
            if (t[i].wide || from >= to) continue;
            void *s = sh_at(k, w.scores, i * ld + from);
            double best = k->affine_max(s, scales ? sh_at(k, scales, from) : NULL,
                                        biases ? sh_at(k, biases, from) : NULL, sh_shift(job, v[i].query), to - from);
            if (best - best != 0) return sh_fail(context, SH_NOT_FINITE, "queries", v[i].query);
            if (best < t[i].floor) continue;
            see(job, v[i].query, &t[i], best);
            for (int64_t j = from; j < to && make_room(l, v[i].query, &t[i], w.finish.z); j += SH_PIECE) {
                sh_candidate *c = t[i].list + t[i].n;
                int64_t found =
                    k->collect(sh_at(k, w.scores, i * ld + j), sh_min(SH_PIECE, to - j), t[i].floor, first + j, c);
                for (int64_t o = 0; o < found; o++) c[o].position = v->lane + l->apart * c[o].position;
                t[i].n += found;
            }
        }
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    ahead next;
    int64_t read = 0;
    begin_at(l, v, rows, 0, &next);
    for (int64_t i = 0; i < rows; i++) {
        int64_t query = v[i].query;
        while (!t[i].wide && (n = score_pairs(l, v, rows, i, &next, &w)) > 0) {
            double best = -INFINITY;
            for (int64_t j = 0; j < n; j++) best = fmax(best, w.pairs[j].score);
            see(job, query, &t[i], best);
            if (!make_room(l, query, &t[i], w.finish.z)) break;
            for (int64_t j = 0; j < n; j++)
                if (w.pairs[j].score >= t[i].floor) t[i].list[t[i].n++] = w.pairs[j];
            if (stopped_at(l, n, &read, context)) return SH_INTERRUPTED;
        }
        sh_status status;
        if (t[i].wide) {
            status = settle_alone(l, v[i], context);
        } else {
            compact(job, query, &t[i], w.finish.z, job->plan.slack[query]);
            sh_sort_by_position(t[i].list, t[i].n);
            sh_rescore(job, query, t[i].list, t[i].n, w.finish.buffer);
            status = sh_store_results(job, query, t[i].list, t[i].n, w.finish, context);
        }
        if (status != SH_OK) return status;
        if (i % ASKED == 0 && sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

/* mixture += w[j] x row position[j] */
static void mix_pairs(const sh_job *job, void *mixture, void *weights, const sh_candidate *c, int64_t n, void *buffer) {
    const sh_kernels *k = job->k;
    int32_t index[SH_PIECE];
    for (int64_t j = 0; j < n; j++) {
        index[j] = (int32_t)c[j].position;
        if (!job->plan.value_scale) continue;
        k->multiply(sh_at(k, weights, j), sh_at(k, job->plan.tile_value_scale, c[j].position), 1);
    }
    if (!sh_is_narrow(job->values)) {
        k->mix(mixture, job->values->d, weights, index, n, job->values->data, job->values->stride / (int64_t)k->size);
        return;
    }
    const int32_t zero = 0;
    for (int64_t j = 0; j < n; j++) {
        const void *row = sh_row_at(k, job->values, c[j].position, buffer);
        k->mix(mixture, job->values->d, sh_at(k, weights, j), &zero, 1, row, job->values->d);
    }
}

/* maps with full support */
static sh_status mix_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    const looking *l = pointer;
    sh_job *job = l->job;
    const sh_memory *m = job->memory;
    const sh_kernels *k = job->k;
    space w;
    lay_out(l, scratch, &w);
    int64_t rows, at = 0, first, n, from, to, width = job->values->d, support[ROWS] = {0};
    const sh_caller *v = gather(l, item, &w, &rows);
    sh_job along = *job;
    along.values = &w.values;
    along.plan.value_centre = NULL; /* rows taken one by one are mixed as they are */
    double scale[ROWS], sum[ROWS] = {0}, parameter = job->model.parameter;
    for (int64_t i = 0; i < rows; i++) scale[i] = NAN;
    if (job->out.states) memset(w.mixture, 0, (size_t)(rows * width) * k->size);
    while ((n = next_span(l, w.patterns.n, v[0].place, v[rows - 1].place, &at, &first)) > 0) {
        int64_t ld = score_span(job, &w, rows, first, n);
        const char *scales = numbers_of_span(l, m->tile_scale, v->lane, first, n, w.scale);
        const char *biases = numbers_of_span(l, job->plan.tile_bias, v->lane, first, n, w.bias);
        const char *shares = numbers_of_span(l, job->plan.tile_value_scale, v->lane, first, n, w.value_scale);
        for (int64_t i = 0; i < rows; i++) {
            char *row = sh_at(k, w.scores, i * ld);
            part_of_span(l->s, v[i].place, first, n, &from, &to);
            if (from >= to) from = to = n;
            void *s = sh_at(k, row, from);
            memset(row, 0, (size_t)from * k->size);
            memset(sh_at(k, row, to), 0, (size_t)(n - to) * k->size);
            if (from == to) continue;
            double best = k->affine_max(s, scales ? sh_at(k, scales, from) : NULL,
                                        biases ? sh_at(k, biases, from) : NULL, 0, to - from);
            if (best - best != 0) return sh_fail(context, SH_NOT_FINITE, "queries", v[i].query);
            void *mixture = job->out.states ? sh_at(k, w.mixture, i * width) : NULL;
            double here = job->map->row_scale(k, s, to - from), beta = sh_beta(job, v[i].query);
            sh_raise_scale(job, v[i].query, &scale[i], &sum[i], mixture, here);
            sum[i] += job->map->row_weights(k, s, to - from, beta, parameter, scale[i]);
            support[i] += to - from;
            if (shares) k->multiply(s, sh_at(k, shares, from), to - from);
        }
        if (job->out.states)
            sh_tile_mix(&along, w.scores, ld, rows, first, n, 0, width, 1, w.mixture, width, w.tile_rows);
        if (sh_stopped(context)) return SH_INTERRUPTED;
    }
    ahead next;
    int64_t read = 0;
    begin_at(l, v, rows, 0, &next);
    for (int64_t i = 0; i < rows; i++) {
        int64_t query = v[i].query;
        void *mixture = job->out.states ? sh_at(k, w.mixture, i * width) : NULL;
        double beta = sh_beta(job, query);
        if (sh_needs_canonical_scores(job, query)) {
            sh_status status = settle_alone(l, v[i], context);
            if (status != SH_OK) return status;
            continue;
        }
        while ((n = score_pairs(l, v, rows, i, &next, &w)) > 0) {
            for (int64_t j = 0; j < n; j++) w.z[j] = w.pairs[j].score - sh_shift(job, query); /* as spans have them */
            k->from_double(w.row, w.z, n);
            sh_raise_scale(job, query, &scale[i], &sum[i], mixture, job->map->row_scale(k, w.row, n));
            sum[i] += job->map->row_weights(k, w.row, n, beta, parameter, scale[i]);
            support[i] += n;
            if (mixture) mix_pairs(job, mixture, w.row, w.pairs, n, w.finish.buffer);
            if (stopped_at(l, n, &read, context)) return SH_INTERRUPTED;
        }
        if (mixture) {
            k->scale(mixture, sum[i] != 0 ? 1 / sum[i] : 0, width);
            sh_check_states(job, mixture, 1);
            memcpy(sh_at(k, job->out.states, query * width), mixture, (size_t)width * k->size);
        }
        if (job->out.support_size) job->out.support_size[query] = support[i];
        if (job->out.energy) {
            double pull = scale[i] + sh_shift(job, query) + log(sum[i]) / beta;
            job->out.energy[query] = support[i] ? sh_energy_of(job, query, pull) : sh_half_square(job, query);
        }
        if (i % ASKED == 0 && sh_stopped(context)) return SH_INTERRUPTED;
    }
    return SH_OK;
}

/* Queries that go together: neighbours, so that what they look at overlaps. */
static void group(looking *l) {
    const sh_structure *s = l->s;
    int64_t n = l->job->queries.n, most = ROWS;
    sh_in_order(s, l->apart, n, l->visits);
    if (l->spans && s->pairs == SH_PAIRS_WINDOW) most = sh_max(8, sh_min(s->width / 2, ROWS));
    for (int64_t i = 0, begun = 0; i < n; i++) {
        int64_t place = l->visits[i].place, before = l->visits[begun].place;
        int apart = s->pairs == SH_PAIRS_WINDOW ? place - before >= most : place / s->rows != before / s->rows;
        apart |= l->visits[i].lane != l->visits[begun].lane;
        if (i > 0 && i - begun < ROWS && !(l->spans && apart)) continue;
        begun = i;
        l->start[l->items++] = i;
    }
    l->start[l->items] = n;
}

/* Whether the products reach from one pattern of a lane to the next: their row lengths are 32-bit numbers. */
static int has_spans(const sh_job *job, int64_t dilation) {
    int64_t longest = sh_max(1, sh_max(job->memory->patterns.stride, job->values->stride));
    return dilation == 1 || dilation <= INT32_MAX / longest;
}

sh_status sh_answer_pairs(sh_job *job) {
    sh_context *context = job->context;
    const sh_structure *s = job->queries.structure;
    int64_t n = job->queries.n;
    const char *wrong = sh_structure_fault(s, n, job->memory->patterns.n);
    if (job->goal > SH_GOAL_WEIGHTS) wrong = "structure";
    if (wrong) return sh_fail(context, SH_BAD_ARGUMENT, wrong, 0);
    looking l = {.job = job, .s = s};
    l.apart = 1;
    if (s->pairs == SH_PAIRS_WINDOW) {
        l.spans = has_spans(job, s->dilation);
        if (l.spans) l.apart = s->dilation;
    } else {
        l.spans = s->pairs == SH_PAIRS_BLOCKS && s->rows >= THIN;
    }
    l.room = sh_max(SHORT, sh_min(LONG, sh_most_pairs(s) + SH_PIECE));
    l.visits = sh_allocate(context, n, sizeof *l.visits);
    l.start = sh_allocate(context, n + 1, sizeof *l.start);
    sh_status status = SH_OK;
    if (!l.visits || !l.start) {
        status = sh_fail(context, SH_NO_MEMORY, NULL, 0);
    } else {
        space unused;
        group(&l);
        if (job->goal == SH_GOAL_WEIGHTS && !job->map->window)
            status = sh_for_each(context, n, 0, alone_item, &l);
        else
            status = sh_for_each(context, l.items, lay_out(&l, NULL, &unused),
                                 job->map->window ? filter_item : mix_item, &l);
    }
    sh_release(context, l.visits);
    sh_release(context, l.start);
    return status;
}
