/* retrieval/index/file.c: the indexes of a memory as bytes that a file holds, which serve where they lie.
 *
 *   file_header    what it is, its checksum, and the patterns that the indexes are of
 *   saved_index    of each index in turn its numbers, then its arrays: filter.step, scales, panels; unless it has longer
 *                  codes centre, basis, refinement.step, order, boxes and records
 *
 * Every part begins at a multiple of 64 bytes. Numbers are as this machine has them: another byte order is told by the
 * header. Nothing depends on the instruction set (kernels/codes.h).
 *
 * Notes  1. Sizes follow from shapes. These are compared with the memory's and with each other before anything is read
 *           by them; so whatever the bytes are, nothing outside of them is read.
 *        2. A search goes by the order, the boxes and the bounds of slots. So the order is checked to have every pattern
 *           once, in its segment, before the empty slots of its panel, which have the bias -INFINITY; and all numbers to be so small that no
 *           bound overflows: else -INFINITY could become NaN, and the search list a slot that has no pattern.
 *        3. Then the bounds hold as far as the bytes are those that were exported: the checksum tells damage, and the
 *           fingerprint other patterns. Whoever makes a checksum for bounds of his own can make a search miss patterns.
 */
#include "retrieval/index/quantise.h"
#include <assert.h>
#include <stddef.h>
#include <string.h>

/* To be changed with anything that is stored, or its meaning: the fields below, panels and boxes (kernels/codes.h),
 * records, columns of boxes, what bounds allow for. */
enum { VERSION = 2, ALIGNMENT = 64, BYTE_ORDER_MARK = 0x01020304 };
static const char MAGIC[8] = {'s', 'h', ' ', 'i', 'n', 'd', 'e', 'x'};

typedef struct {
    char magic[8];
    uint32_t version, byte_order;
    uint64_t checksum; /* of all that follows */
    int64_t bytes;     /* of all */
    uint64_t fingerprint;
    int64_t patterns, d;
    int32_t type, stored_type, similarity; /* of the memory, of its rows */
    float scale;                           /* of rows of a narrow type, else 1 */
    int64_t indexes;
    int64_t unused[6];
} file_header;

typedef struct {
    int64_t number; /* SH_LEADING_INDEX and so on, ascending */
    int64_t rank, filter_columns, refinement_columns, refinement_rotated;
    int64_t box_columns, box_column[SH_BOX_COLUMNS - 1];
    int64_t segments, segment_start[SH_SEGMENTS], segment_panel[SH_SEGMENTS], panels;
    double scaling, first_distance, eta, filter_weight[4], refinement_weight[4];
    int64_t unused[7];
} saved_index;

_Static_assert(sizeof(file_header) == 2 * ALIGNMENT && sizeof(saved_index) == 12 * ALIGNMENT, "no gaps between fields");

/* --- checksums ------------------------------------------------------------------------------------ */

enum { CHECKED_BYTES = 1 << 20 }; /* of an item of work */
typedef struct {
    const char *data;
    int64_t bytes;
    _Atomic uint64_t sum;
} checksum;

static sh_status checksum_item(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    checksum *c = pointer;
    int64_t first = item * CHECKED_BYTES, bytes = sh_min(CHECKED_BYTES, c->bytes - first);
    atomic_fetch_add(&c->sum, sh_hash(c->data + first, (size_t)bytes, (uint64_t)item + 1));
    return SH_OK;
}

/* Computes the checksum of a file of so many bytes. */
static sh_status compute_checksum(sh_context *context, const void *file, int64_t bytes, uint64_t *sum) {
    const int64_t first = offsetof(file_header, bytes);
    checksum c = {.data = (const char *)file + first, .bytes = bytes - first};
    sh_status status = sh_for_each(context, sh_ceil_div(c.bytes, CHECKED_BYTES), 0, checksum_item, &c);
    *sum = atomic_load(&c.sum);
    return status;
}

/* --- arrays --------------------------------------------------------------------------------------- */

/* Returns the next array of a file that begins at `file` (NULL: only counted), and counts it. */
static void *place(void *file, size_t *used, int64_t count, size_t size) {
    void *array = file ? (char *)file + *used : NULL;
    *used += sh_align((size_t)count * size);
    return count && size ? array : NULL;
}

/* Says where the arrays of an index of known shape lie behind the first `used` bytes. */
static void place_arrays(void *file, size_t *used, sh_index *x) {
    x->filter.step = place(file, used, 2 * x->filter.columns, sizeof *x->filter.step);
    x->filter.inverse = file ? x->filter.step + x->filter.columns : NULL;
    x->scales = place(file, used, x->panel_count, sizeof *x->scales);
    x->panels = place(file, used, x->panel_count, sh_panel_bytes(x->quads));
    if (x->base) return;
    x->centre = place(file, used, x->d, sizeof *x->centre);
    x->basis = place(file, used, x->rank * x->d, sizeof *x->basis);
    x->refinement.step = place(file, used, 2 * x->refinement.columns, sizeof *x->refinement.step);
    x->refinement.inverse = x->refinement.step ? x->refinement.step + x->refinement.columns : NULL;
    x->order = place(file, used, x->panel_count * SH_PANEL, sizeof *x->order);
    x->boxes = place(file, used, sh_ceil_div(x->panel_count, SH_GROUP) * SH_GROUP_FLOATS, sizeof *x->boxes);
    x->records = place(file, used, x->panel_count * SH_PANEL, x->record_bytes);
}

static void copy_array(void *to, const void *from, int64_t count, size_t size) {
    if (to) memcpy(to, from, (size_t)count * size);
}

/* Copies the records of slots that have a pattern, but no byte that was never written: the gap behind codes. */
static void copy_records(sh_index *to, const sh_index *from) {
    const size_t codes = (size_t)to->refinement.columns, end = to->record_bytes - 12;
    for (int64_t slot = 0; to->records && slot < to->panel_count * SH_PANEL; slot++) {
        char *record = to->records + (size_t)slot * to->record_bytes;
        memset(record, 0, to->record_bytes);
        if (to->order[slot] < 0) continue;
        const char *its = from->records + (size_t)slot * to->record_bytes;
        memcpy(record, its, codes);
        memcpy(record + end, its + end, 12);
    }
}

static void copy_arrays(sh_index *to, const sh_index *from) {
    copy_array(to->filter.step, from->filter.step, 2 * to->filter.columns, sizeof *to->filter.step);
    copy_array(to->scales, from->scales, to->panel_count, sizeof *to->scales);
    copy_array(to->panels, from->panels, to->panel_count, sh_panel_bytes(to->quads));
    if (to->base) return;
    copy_array(to->centre, from->centre, to->d, sizeof *to->centre);
    copy_array(to->basis, from->basis, to->rank * to->d, sizeof *to->basis);
    copy_array(to->refinement.step, from->refinement.step, 2 * to->refinement.columns, sizeof *to->refinement.step);
    copy_array(to->order, from->order, to->panel_count * SH_PANEL, sizeof *to->order);
    copy_array(to->boxes, from->boxes, sh_ceil_div(to->panel_count, SH_GROUP) * SH_GROUP_FLOATS, sizeof *to->boxes);
    copy_records(to, from);
}

/* --- export --------------------------------------------------------------------------------------- */

/* Returns the shape of an index, without its arrays. */
static sh_index shape_of(const sh_index *x) {
    return (sh_index){.base = x->base,
                      .d = x->d,
                      .rank = x->rank,
                      .filter.columns = x->filter.columns,
                      .refinement.columns = x->refinement.columns,
                      .quads = x->quads,
                      .panel_count = x->panel_count,
                      .record_bytes = x->record_bytes};
}

static saved_index numbers_of(const sh_index *x, int64_t number) {
    saved_index s = {.number = number,
                     .rank = x->rank,
                     .filter_columns = x->filter.columns,
                     .refinement_columns = x->refinement.columns,
                     .refinement_rotated = x->refinement.rotated,
                     .box_columns = x->box_columns,
                     .segments = x->segments,
                     .panels = x->panel_count,
                     .scaling = x->scaling,
                     .first_distance = x->first_distance,
                     .eta = x->filter.eta};
    for (int64_t c = 0; c < x->box_columns; c++) s.box_column[c] = x->box_column[c];
    for (int64_t i = 0; i < x->segments; i++) {
        s.segment_start[i] = x->segment_start[i];
        s.segment_panel[i] = x->segment_panel[i];
    }
    memcpy(s.filter_weight, x->filter.weight, sizeof s.filter_weight);
    memcpy(s.refinement_weight, x->refinement.weight, sizeof s.refinement_weight);
    return s;
}

static file_header header_of(const sh_memory *m) {
    const int narrow = sh_is_narrow(m->k, &m->patterns);
    file_header h = {.version = VERSION,
                     .byte_order = BYTE_ORDER_MARK,
                     .patterns = m->patterns.n,
                     .d = m->patterns.d,
                     .type = (int32_t)m->type,
                     .stored_type = (int32_t)m->patterns.type,
                     .similarity = (int32_t)m->similarity,
                     .scale = narrow && m->patterns.scale != 0 ? m->patterns.scale : 1};
    memcpy(h.magic, MAGIC, sizeof h.magic);
    return h;
}

sh_status sh_memory_index_export(sh_context *context, const sh_memory *m, void *file, int64_t capacity,
                                 int64_t *bytes) {
    SH_REQUIRE(context, m, "memory");
    SH_REQUIRE(context, bytes, "bytes");
    SH_REQUIRE(context, capacity >= 0 && (file || capacity == 0), "capacity");
    const sh_index *index[SH_INDEXES];
    *bytes = 0;
    if (m->removed) return SH_OK; /* its indexes have the removed rows, too, which a file of the patterns has not */
    file_header header = header_of(m);
    size_t used = sizeof header;
    for (int i = 0; i < SH_INDEXES; i++) {
        index[i] = atomic_load(&m->indexes->index[i]);
        if (index[i] && index[i]->base != (i == SH_LONGER_INDEX ? index[SH_LEADING_INDEX] : NULL))
            index[i] = NULL; /* what it shares was stored since that was looked for */
        if (!index[i]) continue;
        assert(!index[i]->features && index[i]->patterns == m->patterns.n);
        sh_index shape = shape_of(index[i]);
        header.indexes++;
        used += sizeof(saved_index);
        place_arrays(NULL, &used, &shape);
    }
    *bytes = header.bytes = header.indexes ? (int64_t)used : 0;
    if (!header.indexes || capacity < header.bytes) return SH_OK;
    sh_status status = sh_patterns_fingerprint(context, m, &header.fingerprint);
    if (status != SH_OK) return status;
    memset(file, 0, used); /* gaps, too, are the same in every file */
    used = sizeof header;
    for (int i = 0; i < SH_INDEXES; i++) {
        if (!index[i]) continue;
        saved_index numbers = numbers_of(index[i], i);
        sh_index placed = shape_of(index[i]);
        memcpy((char *)file + used, &numbers, sizeof numbers);
        used += sizeof numbers;
        place_arrays(file, &used, &placed);
        copy_arrays(&placed, index[i]);
    }
    memcpy(file, &header, sizeof header);
    status = compute_checksum(context, file, header.bytes, &header.checksum);
    memcpy(file, &header, sizeof header);
    return status;
}

/* --- import --------------------------------------------------------------------------------------- */

/* Tells whether a number is in [least, most]; NaN is not. */
static int is_between(double x, double least, double most) { return x >= least && x <= most; }
static int are_between(const float *x, int64_t n, float least, float most) {
    int outside = 0;
    for (int64_t i = 0; i < n; i++) outside |= !(x[i] >= least && x[i] <= most);
    return !outside;
}

/* The largest sizes of numbers (note 2). A query has |w| < 2^60, so its columns are below 2^61, its step below 2^71, and its
 * error radius below 2^94; a bound is the sum of three terms below 2^126. */
static const float LARGEST_STEP = 0x1p10f, LARGEST_SCALE = 0x1p10f, LARGEST_ERROR = 0x1p30f, LARGEST_BIAS = 0x1p100f,
                   LARGEST_COLUMN = 0x1p10f;
static int are_weights(const double weight[4]) {
    int sound = 1;
    for (int i = 0; i < 4; i++) sound &= is_between(weight[i], 0x1p-44, 0x1p20);
    return sound;
}

/* Checks the numbers of an index that has a base of its own, and takes them. Returns whether they are sound. */
static int take_numbers(const sh_memory *m, const saved_index *s, sh_index *x) {
    const int64_t d = m->patterns.d, n = m->patterns.n, columns = s->rank ? s->rank : d;
    int rotated = s->rank > 0;
    if (s->rank < 0 || s->rank > sh_min(d, SH_LARGEST_GRAM) || (rotated && s->number == SH_ALL_INDEX)) return 0;
    if (rotated ? s->filter_columns != SH_SHORT_CODE || s->rank < SH_SHORT_CODE
                : s->filter_columns != d || d > SH_MOST_FEATURES || s->refinement_columns != 0 || s->eta != 0)
        return 0;
    if (s->refinement_columns != 0 && s->refinement_columns != (s->refinement_rotated ? s->rank : d)) return 0;
    if (s->box_columns != sh_min(SH_BOX_COLUMNS - 1, columns)) return 0;
    int exponent;
    if (!is_between(s->scaling, 0x1p-500, 0x1p500) || frexp(s->scaling, &exponent) != 0.5) return 0;
    if (!is_between(s->first_distance, 0, 0x1p500) || !is_between(s->eta, 0, 0x1p-14)) return 0;
    if (!are_weights(s->filter_weight) || (s->refinement_columns && !are_weights(s->refinement_weight))) return 0;
    if (s->segments < 1 || s->segments > SH_SEGMENTS || s->segment_start[0] != 0 || s->segment_panel[0] != 0) return 0;
    *x = (sh_index){.references = 1,
                    .borrowed = 1,
                    .kind = s->number == SH_ALL_INDEX ? SH_ALL_COLUMNS : SH_LEADING_COLUMNS,
                    .patterns = n,
                    .d = d,
                    .scaling = s->scaling,
                    .first_distance = s->first_distance,
                    .rank = s->rank,
                    .box_columns = s->box_columns,
                    .segments = s->segments};
    x->boxes_by_distance = sh_has_distance_bias(x, m);
    for (int64_t c = 0; c < s->box_columns; c++) {
        if (s->box_column[c] < 0 || s->box_column[c] >= columns) return 0;
        x->box_column[c] = (int32_t)s->box_column[c];
    }
    for (int64_t i = 0; i < s->segments; i++) {
        const int last = i + 1 == s->segments;
        const int64_t start = s->segment_start[i], end = last ? n : s->segment_start[i + 1];
        const int64_t panel = s->segment_panel[i], next = last ? s->panels : s->segment_panel[i + 1];
        if (start < 0 || start >= end || end > n) return 0;
        if (panel < 0 || panel >= next || next - panel > end - start) return 0; /* each has a pattern */
        x->segment_start[i] = start;
        x->segment_panel[i] = panel;
    }
    x->panel_count = s->panels;
    sh_set_quantiser(&x->filter, s->filter_columns, rotated, s->eta, d);
    if (s->refinement_columns)
        sh_set_quantiser(&x->refinement, s->refinement_columns, s->refinement_rotated != 0, s->eta, d);
    memcpy(x->filter.weight, s->filter_weight, sizeof s->filter_weight);
    memcpy(x->refinement.weight, s->refinement_weight, sizeof s->refinement_weight);
    x->quads = sh_ceil_div(x->filter.columns, 4);
    x->record_bytes = sh_record_bytes(x->refinement.columns);
    return 1;
}

/* Does the same for an index with longer codes. */
static int take_longer_numbers(const saved_index *s, sh_index *base, sh_index *x) {
    if (!base || base->rank < SH_LONG_CODE || s->filter_columns != SH_LONG_CODE || !are_weights(s->filter_weight))
        return 0;
    *x = sh_share_base(base);
    x->borrowed = 1;
    sh_set_quantiser(&x->filter, SH_LONG_CODE, 1, base->filter.eta, base->d);
    memcpy(x->filter.weight, s->filter_weight, sizeof s->filter_weight);
    x->quads = SH_LONG_CODE / 4;
    return 1;
}

static int are_sound_steps(const sh_quantiser *c) {
    return are_between(c->step, 2 * c->columns, 1 / LARGEST_STEP, LARGEST_STEP);
}

/* Tells whether the rows of the basis have length 1 as far as eta says; whether they are orthogonal is not computed again. */
static int is_sound_basis(const sh_index *x) {
    int sound = 1;
    for (int64_t i = 0; i < x->rank; i++)
        sound &= is_between(sh_norm2(x->basis + i * x->d, x->d), 1 - 0x1p-12, 1 + 0x1p-12);
    return sound;
}

/* Tells whether every pattern has one slot, of a panel of its segment, and only the last slots of a panel are empty. */
static sh_status check_order(sh_context *context, const sh_index *x, int *sound) {
    uint8_t *seen = sh_allocate(context, sh_ceil_div(x->patterns, 8), 1);
    if (!seen) return sh_fail(context, SH_NO_MEMORY, NULL, 0);
    memset(seen, 0, (size_t)sh_ceil_div(x->patterns, 8));
    int64_t found = 0;
    *sound = 1;
    for (int64_t s = 0; s < x->segments && *sound; s++) {
        const int last = s + 1 == x->segments;
        const int64_t start = x->segment_start[s], end = last ? x->patterns : x->segment_start[s + 1];
        const int64_t end_slot = (last ? x->panel_count : x->segment_panel[s + 1]) * SH_PANEL;
        for (int64_t i = x->segment_panel[s] * SH_PANEL; i < end_slot && *sound; i++) {
            const int64_t pattern = x->order[i];
            if (pattern == -1) {
                *sound = i % SH_PANEL != 0 && ((i + 1) % SH_PANEL == 0 || x->order[i + 1] == -1);
                continue;
            }
            *sound = pattern >= start && pattern < end && !(seen[pattern / 8] >> pattern % 8 & 1);
            if (*sound) seen[pattern / 8] |= (uint8_t)(1 << pattern % 8), found++;
        }
    }
    *sound &= found == x->patterns;
    sh_release(context, seen);
    return SH_OK;
}

/* Tells whether the numbers of a slot are sound. */
static int is_sound_slot(float error, float bias, int is_empty) {
    return error >= 0 && error <= LARGEST_ERROR && (is_empty ? bias == -INFINITY : fabsf(bias) <= LARGEST_BIAS);
}

/* Tells whether the numbers of a group of panels are sound; those behind the last panel are to have the bias -INFINITY. */
static int is_sound_group(const sh_index *x, int64_t group) {
    const float *box = sh_group(x, group), *bias = box + 2 * SH_BOX_COLUMNS * SH_GROUP;
    int sound = are_between(box, 2 * SH_BOX_COLUMNS * SH_GROUP, -LARGEST_COLUMN, LARGEST_COLUMN);
    for (int64_t p = 0; p < SH_GROUP; p++) sound &= is_sound_slot(0, bias[p], group * SH_GROUP + p >= x->panel_count);
    return sound;
}

/* The check of all panels, each of which is an item of work. */
typedef struct {
    const sh_index *x;
    _Atomic int unsound;
} panel_check;

static sh_status check_panel(void *pointer, int64_t item, void *scratch, sh_context *context) {
    (void)scratch, (void)context;
    panel_check *check = pointer;
    const sh_index *x = check->x;
    const float *errors = sh_panel_errors(x->panels + (size_t)item * sh_panel_bytes(x->quads), x->quads);
    const int32_t *order = x->order + item * SH_PANEL;
    int sound = are_between(&x->scales[item], 1, 0, LARGEST_SCALE);
    for (int64_t i = 0; i < SH_PANEL; i++) {
        sound &= is_sound_slot(errors[i], errors[SH_PANEL + i], order[i] < 0);
        if (x->base || !x->records || order[i] < 0) continue;
        float end[3]; /* scale, error radius, bias */
        memcpy(end, x->records + (size_t)(item * SH_PANEL + i + 1) * x->record_bytes - sizeof end, sizeof end);
        sound &= are_between(end, 1, 0, LARGEST_SCALE) && is_sound_slot(end[1], end[2], 0);
    }
    if (!x->base && item % SH_GROUP == 0) sound &= is_sound_group(x, item / SH_GROUP);
    if (!sound) atomic_store(&check->unsound, 1);
    return SH_OK;
}

/* Checks all arrays of an index. */
static sh_status check_arrays(sh_context *context, const sh_memory *m, sh_index *x, int *sound) {
    sh_status status = SH_OK;
    *sound = are_sound_steps(&x->filter);
    if (*sound && !x->base) {
        for (int64_t j = 0; j < x->d; j++) *sound &= is_between(x->centre[j], -0x1p500, 0x1p500);
        sh_set_centre_norms(x);
        *sound = *sound && is_between(sh_largest_distance(x, m) * x->scaling, 0, 1) && is_sound_basis(x) &&
                 (!x->refinement.columns || are_sound_steps(&x->refinement));
        if (*sound) status = check_order(context, x, sound);
    }
    if (status != SH_OK || !*sound) return status;
    panel_check check = {.x = x};
    status = sh_for_each(context, x->panel_count, 0, check_panel, &check);
    *sound = !atomic_load(&check.unsound);
    return status;
}

/* Makes the next index of a file behind its first *used bytes; *index is NULL where it is not sound. */
static sh_status take_index(sh_context *context, const sh_memory *m, const void *file, size_t bytes, size_t *used,
                            sh_index *const taken[], int *number, sh_index **index) {
    saved_index s;
    sh_index numbers;
    *index = NULL;
    if (bytes - *used < sizeof s) return SH_OK;
    memcpy(&s, (const char *)file + *used, sizeof s);
    *used += sizeof s;
    if (s.number < *number || s.number >= SH_INDEXES) return SH_OK;
    *number = (int)s.number;
    sh_index *base = s.number == SH_LONGER_INDEX ? taken[SH_LEADING_INDEX] : NULL;
    if (!(s.number == SH_LONGER_INDEX ? take_longer_numbers(&s, base, &numbers) : take_numbers(m, &s, &numbers)))
        return SH_OK;
    size_t end = *used;
    place_arrays(NULL, &end, &numbers);
    sh_index *x = end <= bytes ? sh_allocate(context, 1, sizeof *x) : NULL;
    if (!x) {
        if (base) sh_index_free(context, base); /* the reference that `numbers` has */
        return end <= bytes ? sh_fail(context, SH_NO_MEMORY, NULL, 0) : SH_OK;
    }
    *x = numbers;
    place_arrays((void *)file, used, x); /* of a borrowed index, which nobody writes to */
    if (!base) sh_set_box_errors(x, x->filter.eta);
    x->bytes = sh_index_total_bytes(x);
    int sound = 0;
    sh_status status = check_arrays(context, m, x, &sound);
    if (status == SH_OK && sound)
        *index = x;
    else
        sh_index_free(context, x);
    return status;
}

/* Makes all indexes of a file. */
static sh_status take_indexes(sh_context *context, const sh_memory *m, const void *file, const file_header *header,
                              sh_index *taken[]) {
    size_t used = sizeof *header;
    int number = 0;
    for (int64_t i = 0; i < header->indexes; i++, number++) {
        sh_index *index;
        sh_status status = take_index(context, m, file, (size_t)header->bytes, &used, taken, &number, &index);
        if (status != SH_OK) return status;
        if (!index) return sh_fail(context, SH_BAD_ARGUMENT, "file", 0);
        taken[number] = index;
    }
    return used == (size_t)header->bytes ? SH_OK : sh_fail(context, SH_BAD_ARGUMENT, "file", 0);
}

/* Checks that a file is whole, of this version, and of these patterns; and reads its header. */
static sh_status check_header(sh_context *context, const sh_memory *m, const void *file, int64_t bytes,
                              file_header *header) {
    const file_header its = header_of(m);
    SH_REQUIRE(context, bytes >= (int64_t)sizeof *header, "file");
    memcpy(header, file, sizeof *header);
    SH_REQUIRE(context, !memcmp(header->magic, MAGIC, sizeof MAGIC), "file");
    SH_REQUIRE(context, header->version == VERSION && header->byte_order == BYTE_ORDER_MARK, "version");
    uint64_t number;
    SH_REQUIRE(context, header->bytes == bytes, "file");
    sh_status status = compute_checksum(context, file, bytes, &number);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, number == header->checksum, "file");
    SH_REQUIRE(context, header->indexes >= 1 && header->indexes <= SH_INDEXES, "file");
    SH_REQUIRE(context,
               header->patterns == its.patterns && header->d == its.d && header->type == its.type &&
                   header->stored_type == its.stored_type && header->similarity == its.similarity &&
                   header->scale == its.scale && its.patterns <= INT32_MAX - SH_PANEL * SH_SEGMENTS,
               "patterns");
    status = sh_patterns_fingerprint(context, m, &number);
    if (status != SH_OK) return status;
    SH_REQUIRE(context, number == header->fingerprint, "patterns");
    return SH_OK;
}

sh_status sh_memory_index_import(sh_context *context, const sh_memory *m, const void *file, int64_t bytes) {
    SH_REQUIRE(context, m, "memory");
    SH_REQUIRE(context, file && (uintptr_t)file % ALIGNMENT == 0, "file");
    if (m->indexes->use == SH_INDEX_NEVER) return SH_OK;
    file_header header;
    sh_index *taken[SH_INDEXES] = {NULL};
    sh_status status = check_header(context, m, file, bytes, &header);
    if (status == SH_OK) status = take_indexes(context, m, file, &header, taken);
    for (int i = 0; i < SH_INDEXES; i++) {
        sh_index *none = NULL;
        if (status == SH_OK && taken[i] && atomic_compare_exchange_strong(&m->indexes->index[i], &none, taken[i]))
            continue;
        sh_index_free(context, taken[i]);
    }
    return status;
}

int sh_borrows_index(const sh_memory *m) {
    int borrows = 0;
    for (int i = 0; i < SH_INDEXES; i++) {
        const sh_index *x = atomic_load(&m->indexes->index[i]);
        borrows |= x && (x->borrowed || (x->base && x->base->borrowed));
        x = i < SH_LONGER_INDEX ? atomic_load(&m->indexes->older[i]) : NULL;
        borrows |= x && x->borrowed;
    }
    return borrows;
}
