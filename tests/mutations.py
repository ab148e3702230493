"""Break the code in known places, one at a time, and see whether the tests that run by default notice.

    python -m tests.mutations                     all of them; some seconds to a minute each
    python -m tests.mutations --only margins      those whose name holds a word
    python -m tests.mutations --list              names and places only, and what is wrong with a mutation

Each mutation is made in a copy of the tree, which is built with -O1 and with the hooks that some tests need, by ccache
where there is one. First the tests are run in the copy as it is: only what passes there can notice anything. The exit
status is 1 if a mutation survives, if the text that it replaces is not there exactly once, if there are no tests of the
names that it has, or if it does not build.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_BEHIND = (".git", ".venv", "build", "build-*", "__pycache__", ".*_cache", ".hypothesis", "*.so", "_libs", "shared")
PATIENCE = 900  # seconds after which tests that a mutation has made wait for ever have noticed it


@dataclass(frozen=True)
class Mutation:
    """One place that is made wrong: a name, a file, its text, what to write instead, and the tests to ask."""

    name: str
    file: str
    old: str
    new: str
    tests: str

    @property
    def is_c(self) -> bool:
        """Whether the core must be built anew."""
        return self.file.startswith("csrc/")

    def fault(self, tree: Path) -> str:
        """Return what is wrong with it, or nothing: a text that is not there exactly once, tests that there are not."""
        found = (tree / self.file).read_text(encoding="utf-8").count(self.old)
        if found != 1:
            return f"OLD TEXT FOUND {found} TIMES"
        missing = [name for name in self.tests.split() if not files_of(name)]
        return f"NO TESTS {' '.join(missing)}" if missing else "CHANGES NOTHING" if self.old == self.new else ""


MUTATIONS = [
    # --- C: scores and thresholds
    Mutation(
        "similarity: euclidean scores without the half",
        "csrc/retrieval/rescore.c",
        "c->score = 0 - job->k->distance2(x, row, m->patterns.d) / 2;",
        "c->score = 0 - job->k->distance2(x, row, m->patterns.d);",
        "exactness",
    ),
    Mutation(
        "canonical dot: partial sums added in another order",
        "csrc/kernels/kernels_real.h",
        """    for (int half = SUMS / 2; half; half /= 2)
        for (int l = 0; l < half; l++) sum[l] += sum[l + half];
    return sum[0];
}

static void NAME(accumulate)""",
        """    for (int l = 1; l < SUMS; l++) sum[0] += sum[l];
    return sum[0];
}

static void NAME(accumulate)""",
        "exactness",
    ),
    Mutation(
        "removed rows: an index's lists keep them",
        "csrc/retrieval/index/query.c",
        "kept += !sh_is_hidden(s->job, query, s->index->order[f->slot[i]]);",
        "kept += 1;",
        "removal exclude",
    ),
    Mutation(
        "excluded patterns: an index's lists keep them",
        "csrc/retrieval/job.h",
        "return sh_is_removed(job->memory, row) || row == sh_excluded(job, query);",
        "(void)query; return sh_is_removed(job->memory, row);",
        "exclude",
    ),
    Mutation(
        "excluded patterns: rows of scores keep the first of a tile",
        "csrc/retrieval/excluded.c",
        "if (row < first || row >= first + n) return 0;",
        "if (row <= first || row >= first + n) return 0;",
        "exclude",
    ),
    Mutation(
        "excluded patterns: limits go by all patterns",
        "csrc/retrieval/job.h",
        "return sh_whole_count(job->memory) - (sh_excluded(job, query) >= 0);",
        "(void)query; return sh_whole_count(job->memory);",
        "exclude",
    ),
    Mutation(
        "excluded patterns: as many of softmax may be within reach as of all patterns",
        "csrc/retrieval/run.c",
        "plan->most_in_reach_less_one = most_in_reach(job, others);",
        "plan->most_in_reach_less_one = most_in_reach(job, n);",
        "exclude",
    ),
    Mutation(
        "excluded patterns: the M - 1 best are not all to anybody",
        "csrc/retrieval/run.c",
        "plan->k_best = s->k < seen_by_all(job) ? s->k : 0;",
        "plan->k_best = s->k < sh_whole_count(m) ? s->k : 0;",
        "exclude",
    ),
    Mutation(
        "excluded patterns: tolerance goes by the longest of all",
        "csrc/retrieval/retrieve.c",
        "if (exclude[i] == longest) r->longest = longest;",
        "if (0) r->longest = longest;",
        "exclude",
    ),
    Mutation(
        "excluded patterns: the polynomial lists them",
        "csrc/retrieval/overflow.c",
        "if (c[i].position != excluded) c[kept++] = c[i];",
        "c[kept++] = c[i];",
        "exclude",
    ),
    Mutation(
        "excluded patterns: a tile of one alone has a best score",
        "csrc/retrieval/excluded.c",
        "sh_position_of(m, first + n) - sh_position_of(m, first) == 1;",
        "sh_position_of(m, first + n) - sh_position_of(m, first) == 0;",
        "exclude",
    ),
    Mutation(
        "removed rows: what rest is goes by the longest of all rows",
        "csrc/retrieval/removed.c",
        "if (!m->removed || m->similarity == SH_COSINE) return SH_OK;",
        "return SH_OK;",
        "removal",
    ),
    Mutation(
        "removed rows: the scan keeps their scores",
        "csrc/retrieval/removed.c",
        "if (row < first || row >= end) continue;",
        "if (row <= first || row >= end) continue;",
        "removal",
    ),
    Mutation(
        "removed rows: one position too few is passed over in a word of bits",
        "csrc/retrieval/removed.c",
        "for (; left > 0; left--) bits &= bits - 1;",
        "for (; left > 1; left--) bits &= bits - 1;",
        "removal",
    ),
    Mutation(
        "removed rows: the packed memory has some of them",
        "csrc/retrieval/removed.c",
        "while (sh_is_removed(p->m, row)) row++;",
        "if (sh_is_removed(p->m, row)) row++;",
        "removal",
    ),
    Mutation(
        "removed rows: supports of thousands are mixed where they lie",
        "csrc/retrieval/run.c",
        "if (status == SH_OK && job->memory->removed && atomic_load(&plan->overflow_count))",
        "if (0)",
        "removal",
    ),
    Mutation(
        "scan: scores of tiles without slack for rounding",
        "csrc/retrieval/run.c",
        "plan->slack[i] = relative * (length * norm + bias + half) + underflow;",
        "plan->slack[i] = 0 * (relative * (length * norm + bias + half) + underflow);",
        "exactness",
    ),
    Mutation(
        "scan: scores of outliers with the slack of all others",
        "csrc/retrieval/outliers.c",
        "return plan->slack[query] + plan->relative * (plan->length[query] * size + bias);",
        "return plan->slack[query] + 0 * plan->relative * (plan->length[query] * size + bias);",
        "outliers",
    ),
    Mutation(
        "scan: the slack of all goes by the largest pattern",
        "csrc/retrieval/run.c",
        "norm = plan->outliers->limit;",
        "norm = m->max_norm;",
        "outliers",
    ),
    Mutation(
        "sparsemax: scores on a coarser grid",
        "csrc/separation/sparsemax.c",
        "return z > -1 ? (int64_t)(z * 0x1p62) : -ONE;",
        "return z > -1 ? (int64_t)(z * 0x1p40) * 4194304 : -ONE;",
        "row_maps",
    ),
    Mutation(
        "sparsemax: candidates pruned that may have weight",
        "csrc/separation/sparsemax.c",
        "double lowest = (sum - 1) / (double)n - (double)(n + 4) * 0x1p-52;",
        "double lowest = (sum - 1) / (double)n + 0.01;",
        "row_maps",
    ),
    Mutation(
        "near weights: rounded whatever their bounds say",
        "csrc/kernels/lanes_real.h",
        "unknown |= differ[l] != 0 || !(closest[l]",
        "unknown |= !(closest[l]",
        "row_maps",
    ),
    Mutation(
        "entmax: one more in the support of sorted scores",
        "csrc/separation/entmax.c",
        "    return total < 1;",
        "    return total < 1.001;",
        "row_maps steep_entmax",
    ),
    Mutation(
        "ties: of equal weights the last pattern is kept",
        "csrc/retrieval/rescore.c",
        "(e.weight == last.score && e.position > last.position)",
        "(e.weight == last.score && e.position < last.position)",
        "operations",
    ),
    Mutation(
        "best scores: of equal ones the last comes first",
        "csrc/retrieval/rescore.c",
        "(list[slot - 1].score == c.score && list[slot - 1].position > c.position)",
        "(list[slot - 1].score == c.score && list[slot - 1].position < c.position)",
        "certificates",
    ),
    # --- C: retrieval
    Mutation(
        "mapped files: rows are not asked for before they are read",
        "csrc/retrieval/rescore.c",
        "for (int64_t i = 0; i < n; i++) sh_expect_row(job->memory, rows, c[i].position);",
        "",
        "saved_index",
    ),
    Mutation(
        "index: a bound without the error of the codes",
        "csrc/retrieval/index/bounds.c",
        "q[1] = sqrt(loss.error2) + 0x1p-50 * decoded + c->projection_error * norm;",
        "q[1] = c->projection_error * norm;",
        "screening",
    ),
    Mutation(
        "index: a threshold rounded up",
        "csrc/retrieval/index/bounds.c",
        "return (double)f > scaled ? nextafterf(f, -INFINITY) : f;",
        "return f + 1e-3f * fabsf(f);",
        "screening",
    ),
    Mutation(
        "index: a threshold of upper bounds",
        "csrc/retrieval/index/query.c",
        "(sh_candidate){sh_score_lower_bound(x, q, l->lower[i])",
        "(sh_candidate){sh_score_lower_bound(x, q, l->filter.bound[i])",
        "screening",
    ),
    Mutation(
        "index: the last open panel of a group is passed over",
        "csrc/retrieval/index/query.c",
        "for (unsigned left = v->open[i]; left; left &= left - 1) {",
        "for (unsigned left = v->open[i]; left & (left - 1); left &= left - 1) {",
        "screening",
    ),
    Mutation(
        "index: an entry on the threshold is dropped",
        "csrc/retrieval/index/query.c",
        "kept += !(upper < f->threshold);",
        "kept += upper > f->threshold + 1e-3f * fabsf(f->threshold);",
        "screening",
    ),
    Mutation(
        "index: a bias of numbers that are rounded first",
        "csrc/retrieval/index/quantise.c",
        "- x->centre_norm2 +",
        "- (double)(float)x->centre_norm2 +",
        "bounds",
    ),
    Mutation(
        "index: the bias of a panel's last pattern for all of it",
        "csrc/retrieval/index/quantise.c",
        "largest_bias = fmaxf(largest_bias, bias[i]);",
        "largest_bias = bias[i];",
        "bounds",
    ),
    Mutation(
        "merge: sums of parts not brought to one scale",
        "csrc/retrieval/streaming.c",
        "a.sum[i] = factor_a * a.sum[i] + factor_b * b.sum[i];",
        "a.sum[i] = a.sum[i] + b.sum[i];",
        "operations",
    ),
    Mutation(
        "margins: the second best other",
        "csrc/retrieval/margins.c",
        "self_score[i] - best[2 * i + (best[2 * i].position == self[i])].score",
        "self_score[i] - best[2 * i + 1].score",
        "certificates theory",
    ),
    Mutation(
        "radii: rivals beyond the best score dropped",
        "csrc/retrieval/radii.c",
        "t = square + radius * sqrt(root);",
        "t = square;",
        "radii",
    ),
    Mutation(
        "retrieve: one visit makes a stored row a fixed point",
        "csrc/retrieval/retrieve.c",
        "if (r->is_fixed && moved2 == 0 && row_after >= 0 && row_before == row_after) r->is_fixed[row_after] = 1;",
        "if (r->is_fixed && row_after >= 0) r->is_fixed[row_after] = 1;",
        "operations exactness screening",
    ),
    Mutation(
        "pairs: a window one pattern too far",
        "csrc/retrieval/pairs.c",
        "*from = sh_max(first - t->first, 0);",
        "*from = sh_max(first - 1 - t->first, 0);",
        "structures",
    ),
    Mutation(
        "structure: global positions within the window taken twice",
        "csrc/structure/structure.c",
        "if (!inside && !(s->causal && pattern > place))",
        "if (!(s->causal && pattern > place))",
        "structures",
    ),
    Mutation(
        "growing: room is given to every memory that asks for it",
        "csrc/retrieval/memory.c",
        "atomic_compare_exchange_strong(&old->used, &free_from, n)",
        "(atomic_store(&old->used, n), free_from >= 0)",
        "store",
    ),
    Mutation(
        "float64 queries: every part of a tile is widened from its first row",
        "csrc/retrieval/memory.c",
        "copy_columns(k, x, job->plan.centre, first + i, copied, c, columns, tile_rows);",
        "copy_columns(k, x, job->plan.centre, first, copied, c, columns, tile_rows);",
        "float64_queries",
    ),
    Mutation(
        "overflow: scores may exceed the compute type",
        "csrc/retrieval/run.c",
        "if (!(length * m->max_raw_norm + m->max_bias + half < k->largest))",
        "if (length < 0)",
        "exactness",
    ),
    Mutation(
        "candidates: those below the floor are listed, too",
        "csrc/retrieval/rescore.c",
        "if (job->floor) n = sh_keep_above(",
        "if (0) n = sh_keep_above(",
        "parts",
    ),
    Mutation(
        "candidates: a scan begins above the floor",
        "csrc/retrieval/scan.c",
        "fmax(least, sh_floor(job, query, job->plan.slack[query]));",
        "fmax(least, sh_floor(job, query, -job->plan.slack[query]));",
        "parts",
    ),
    Mutation(
        "candidates: more than may be listed are listed",
        "csrc/retrieval/run.c",
        "job->goal == SH_GOAL_CANDIDATES ? job->most :",
        "job->goal == SH_GOAL_CANDIDATES ? job->most + 1 :",
        "parts",
    ),
    Mutation(
        "parts: limits go by the patterns of the part",
        "csrc/retrieval/job.h",
        "return m->whole_count ? m->whole_count : sh_count(m);",
        "return sh_count(m);",
        "parts",
    ),
    Mutation(
        "parts: the tolerance goes by the patterns of the part",
        "csrc/retrieval/retrieve.c",
        "if (!m->whole_count) status =",
        "if (1) status =",
        "parts",
    ),
    Mutation(
        "memory: a list that there was no memory for is used",
        "csrc/retrieval/scan.c",
        "if (!longer.list) return 0;",
        "if (!longer.list && capacity < 0) return 0;",
        "memory_safety",
    ),
    Mutation(
        "overflow: supports of more than 1,024 patterns take weights of the product",
        "csrc/retrieval/overflow.c",
        "const int64_t most = too_many ? sh_exact_support(job, query) : n;",
        "const int64_t most = too_many ? SH_EXACT_SUPPORT : n;",
        "large_supports",
    ),
    # --- C: layers and features
    Mutation(
        "backward: keys get no gradient through the mixture of an update",
        "csrc/association/backward.c",
        """    if (j->wants_rows) sh_outer_tile(t, s, SH_KEYS, w->s, update->list, update->n, w->z, w);
    through_scores(j, q, w, s, update);
}
""",
        """    through_scores(j, q, w, s, update);
}
""",
        "association",
    ),
    Mutation(
        "backward: values get the gradient of weights before dropout",
        "csrc/association/backward.c",
        "if (drops && j->wants_rows) sh_multiply_tile(",
        "if (0) sh_multiply_tile(",
        "association",
    ),
    Mutation(
        "padding: rows that are padded are seen under a structure",
        "csrc/association/visible.c",
        "if (!p->padding || !p->padding[pairs[j]]) w->visible[n++ * t->width + i] = (int32_t)pairs[j];",
        "w->visible[n++ * t->width + i] = (int32_t)pairs[j];",
        "association_structures",
    ),
    Mutation(
        "features: causal sums of the second part lost",
        "csrc/features/features.c",
        "for (int64_t p = 2; p < parts; p++) sh_merge_sums(",
        "for (int64_t p = 3; p < parts; p++) sh_merge_sums(",
        "features",
    ),
    # --- C: the process
    Mutation(
        "fork: a child does not know that it is one",
        "csrc/runtime/process.c",
        "    atomic_fetch_add(&forks, 1);\n",
        "",
        "process",
    ),
    Mutation(
        "pool: workers closed out of a job are not waited for",
        "csrc/runtime/pool.c",
        "while (pool.joined) sh_wait(&pool.done, &pool.lock);",
        "",
        "threads",
    ),
    Mutation(
        "team: a call uses more threads than PyTorch has",
        "csrc/runtime/team.c",
        "    if (max_threads) n = (int)sh_min(n, max_threads());\n",
        "",
        "threads_of_torch",
    ),
    # --- Python: what comes in, what is promised
    Mutation(
        "checks: integers that float32 rounds",
        "sparsehopfield/_engine/checks.py",
        "most = 2**24 if single else 2**53",
        "most = 2**25 if single else 2**53",
        "integers",
    ),
    Mutation(
        "losses: NaN of rows without weight stays in the gradient",
        "sparsehopfield/losses.py",
        "p[~counts] = 0",
        "pass",
        "losses_numpy",
    ),
    Mutation(
        "losses: scores taken as they are, not relative to the true one",
        "sparsehopfield/losses.py",
        "np.where(has_none, 0, level)[:, None], dtype=np.float64)",
        "np.zeros_like(level)[:, None], dtype=np.float64)",
        "losses_numpy",
    ),
    Mutation(
        "losses of tensors: ignored rows keep what they hold",
        "sparsehopfield/torch/losses.py",
        "scores = scores.masked_fill(ignored[..., None], 0)",
        "pass",
        "losses",
    ),
    Mutation(
        "blocks: the last rows of a part are not read",
        "sparsehopfield/_engine/blocks.py",
        "if (end - first) * per_row >= CHUNK or end == stop:",
        "if (end - first) * per_row >= CHUNK:",
        "zarr_rows",
    ),
    Mutation(
        "arrow: nulls are read as numbers",
        "sparsehopfield/_engine/arrow.py",
        "if array.null_count:",
        "if False:",
        "arrow_rows",
    ),
    Mutation(
        "checks: too few values",
        "sparsehopfield/_engine/checks.py",
        """    if len(a) != n_patterns:
        raise ValueError(f"values: needs one row per pattern""",
        """    if len(a) > n_patterns:
        raise ValueError(f"values: needs one row per pattern""",
        "bad_input",
    ),
    Mutation(
        "certificates: gaps not lowered by what rounding may do",
        "sparsehopfield/inspect/certificates.py",
        "gap = score[:, 0] - score[:, 1] - self.bound(row_lengths(queries), sizes)",
        "gap = score[:, 0] - score[:, 1]",
        "certificates certificate_soundness",
    ),
    Mutation(
        "certificates: radii without the required gap",
        "sparsehopfield/inspect/certificates.py",
        "radii[at] = distance / 2 - required_gap[at] / distance - rounding.unit_row_error",
        "radii[at] = distance / 2 - rounding.unit_row_error",
        "certificates",
    ),
    Mutation(
        "duplicates: lists that are full are taken as whole",
        "sparsehopfield/inspect/certificates.py",
        "crowded = firsts[count == MOST_LISTED]",
        "crowded = firsts[count > MOST_LISTED]",
        "duplicates",
    ),
    Mutation(
        "shards: queries with more patterns of weight than were scouted are taken for complete",
        "sparsehopfield/distributed/_coordinator.py",
        "is_open = no if all_scouted else listed[:, -1]",
        "is_open = no",
        "shards",
    ),
    Mutation(
        "shards: nodes of the tree of blocks move up before their siblings come",
        "sparsehopfield/distributed/_steps.py",
        "elif one in left and number == last:",
        "elif one in left:",
        "shards",
    ),
    Mutation(
        "shards: more patterns within reach of softmax than one memory allows",
        "sparsehopfield/distributed/_steps.py",
        "return max(16, whole.count // 128)",
        "return max(16, whole.count // 64)",
        "shards",
    ),
    Mutation(
        "shards: requests of other versions are answered",
        "sparsehopfield/distributed/_shards.py",
        "if self.version != VERSION:",
        "if self.version > VERSION:",
        "shards",
    ),
    Mutation(
        "shards: patterns count as their own rivals",
        "sparsehopfield/distributed/_certificates.py",
        "np.where(is_self, score[:, 1], score[:, 0])",
        "score[:, 0]",
        "shards",
    ),
    Mutation(
        "shards: queries that rest are sent on",
        "sparsehopfield/distributed/_coordinator.py",
        "goes_on = ~rests[moving]",
        "goes_on = np.ones(len(moving), np.bool_)",
        "shards",
    ),
    Mutation(
        "workers: rows that have changed are taken for those that were lost",
        "sparsehopfield/distributed/_held.py",
        "if self.fingerprint != fingerprint:",
        "if fingerprint < 0:",
        "sharded_memory",
    ),
    Mutation(
        "workers: arrays are used as they lie in messages",
        "sparsehopfield/distributed/_dask.py",
        "return part if part.flags.aligned else part.copy()",
        "return part",
        "sharded_memory",
    ),
    Mutation(
        "workers: shards of added rows begin within a block",
        "sparsehopfield/distributed/_memory.py",
        "first_row = -(-last.end_row // BLOCK) * BLOCK",
        "first_row = last.end_row",
        "sharded_memory",
    ),
    Mutation(
        "workers: any file will do in the place of a shard's",
        "sparsehopfield/distributed/_files.py",
        "if _header_checksum(shard) != entry.checksum:",
        'if _header_checksum(shard) == "":',
        "sharded_memory",
    ),
    Mutation(
        "files: what was begun is left behind",
        "sparsehopfield/_engine/atomic_files.py",
        "                os.unlink(temporary)\n",
        "                pass\n",
        "atomic_files",
    ),
    Mutation(
        "files: the header's checksum is not asked",
        "sparsehopfield/_engine/files.py",
        'if set(fields).difference(optional) != names or fields["header"] != _header_checksum(fields, tensors):',
        "if set(fields).difference(optional) != names:",
        "files",
    ),
    Mutation(
        "labels: whole numbers beyond what floats tell apart",
        "sparsehopfield/_engine/labels.py",
        "exact = all(abs(item) < EXACT for item in items)",
        "exact = True",
        "labels",
    ),
    Mutation(
        "partial results: a position in two parts",
        "sparsehopfield/_engine/partial.py",
        "if np.any((query[1:] == query[:-1]) & (position[1:] == position[:-1])):",
        "if np.any((query[1:] == query[:-1]) & (position[1:] < position[:-1])):",
        "operations bad_input",
    ),
    Mutation(
        "partial results: patterns that lost their weight are kept",
        "sparsehopfield/_engine/partial.py",
        "kept = weight > 0\n",
        "kept = weight >= 0\n",
        "operations",
    ),
    Mutation(
        "layers: the padding mask is taken for its opposite",
        "sparsehopfield/layers/_layout.py",
        'padding = np.array(padding, np.bool_, order="C")',
        'padding = ~np.array(padding, np.bool_, order="C")',
        "layers",
    ),
    Mutation(
        "layers: a parameter that two roles share has the gradient of one of them",
        "sparsehopfield/layers/_roles.py",
        "self.found[name] += grad\n",
        "self.found[name] = grad\n",
        "layers",
    ),
    Mutation(
        "layers: a backward pass changes the tape",
        "sparsehopfield/layers/_passes.py",
        "grad = grad * tape.slope\n",
        "grad = np.multiply(grad, tape.slope, out=tape.slope)\n",
        "layers",
    ),
    Mutation(
        "estimators: the last of equal classes",
        "sparsehopfield/estimators/_classifier.py",
        "best = probabilities.argmax(axis=1)",
        "best = len(self.classes_) - 1 - probabilities[:, ::-1].argmax(axis=1)",
        "estimators",
    ),
    Mutation(
        "estimators: too little beta",
        "sparsehopfield/inspect/certificates.py",
        "np.sort(critical)[int(np.argmax(enough))]",
        "np.sort(critical)[int(np.argmax(enough)) // 2]",
        "estimators",
    ),
    Mutation(
        "estimators: lists by the largest sample weight",
        "sparsehopfield/estimators/_sample_weights.py",
        "weight, least = self.weight, float(self.weight.min())",
        "weight, least = self.weight, float(self.weight.max())",
        "estimators",
    ),
    Mutation(
        "estimators: the steep maps take one row too many",
        "sparsehopfield/estimators/_sample_weights.py",
        "has_share = z >= lowest",
        "has_share = z >= lowest - 0.1",
        "estimators",
    ),
    Mutation(
        "estimators: a row left out sees itself where it takes more steps",
        "sparsehopfield/estimators/_base.py",
        "return self._retrieve(self.memory_.patterns, np.arange(m))",
        "return self._retrieve(self.memory_.patterns)",
        "estimators",
    ),
    Mutation(
        "estimators: a row that is reached is taken to stay",
        "sparsehopfield/estimators/_base.py",
        "certain[certain] = (memory.certify(reached, beta).index == first)[at]",
        "certain[certain] = (memory.certify(reached, beta).nearest == first)[at]",
        "estimators",
    ),
    Mutation(
        "estimators: where fitting fails, half of it is left",
        "sparsehopfield/_engine/restoring.py",
        "            vars(self).clear()\n            vars(self).update(before)\n",
        "",
        "estimators",
    ),
    Mutation(
        "estimators: weight decay draws the beta of prototypes to the number of features",
        "sparsehopfield/estimators/_prototypes.py",
        "AdamW(scaling, self.learning_rate, weight_decay=0.0)",
        "AdamW(scaling, self.learning_rate, weight_decay=self.weight_decay)",
        "prototypes",
    ),
    Mutation(
        "estimators: the lengths of prototypes have no gradient",
        "sparsehopfield/estimators/_prototypes.py",
        "        g[0, :, :-1] -= g[0, :, -1:] * self.prototypes  # by way of -|w|^2 / 2\n",
        "",
        "prototypes",
    ),
    Mutation(
        "theory: features far below 0 have the kernel 0",
        "sparsehopfield/structures/_features.py",
        "np.minimum(a, 0) + np.log1p(above)",
        "np.log(np.exp(np.minimum(a, 0)) + above)",
        "nonparametric",
    ),
    Mutation(
        "estimators: a detector's row loses all its copies",
        "sparsehopfield/estimators/_sample_weights.py",
        "exclude = np.where(self.weight <= 1, np.arange(len(self.weight)), -1) if lacks_a_copy else None",
        "exclude = np.arange(len(self.weight)) if lacks_a_copy else None",
        "estimators",
    ),
    Mutation(
        "certificates: classes are certain within rounding",
        "sparsehopfield/inspect/certificates.py",
        "if threshold(few, beta, code) - theirs >= 3 * error:",
        "if threshold(few, beta, code) - theirs >= 0:",
        "estimators",
    ),
    Mutation(
        "theory: the capacity bound's exponent",
        "sparsehopfield/theory/_capacity.py",
        "log_m = math.log(p) / 2 + (d - 1) / 4 * log_c",
        "log_m = math.log(p) / 2 + d / 4 * log_c",
        "theory",
    ),
    Mutation(
        "studies: half a setting is left in the table",
        "sparsehopfield/studies/_core/tables.py",
        "        os.truncate(folder / TABLE, whole)\n",
        "        pass\n",
        "studies",
    ),
    Mutation(
        "studies: a table of other settings is continued",
        "sparsehopfield/studies/_core/tables.py",
        "        if differ:\n",
        "        if len(differ) > 1:\n",
        "studies",
    ),
    Mutation(
        "index: a pattern that a division moves is in two panels, another in none",
        "csrc/retrieval/index/order.c",
        "p[j] = moved;",
        "p[j] = p[i];",
        "screening",
    ),
    Mutation(
        "index: panels that were added are of the first patterns",
        "csrc/retrieval/index/order.c",
        ".pattern = (int32_t)(o->first_pattern + first + i)",
        ".pattern = (int32_t)(first + i)",
        "store",
    ),
    Mutation(
        "index of fewer patterns: its order has the rows of the older one",
        "csrc/retrieval/index/grow.c",
        "(int32_t)sh_position_of(p->other, older->order[from * SH_PANEL + slot[i]])",
        "older->order[from * SH_PANEL + slot[i]]",
        "removal",
    ),
    Mutation(
        "fingerprint: upper bits of words cancel",
        "csrc/retrieval/memory.c",
        "b ^ (uint64_t)(product >> 64), a ^ (uint64_t)product",
        "b, a ^ (uint64_t)product",
        "operations",
    ),
    Mutation(
        "index in a file: damage is not told",
        "csrc/retrieval/index/file.c",
        'SH_REQUIRE(context, number == header->checksum, "file");',
        "",
        "saved_index",
    ),
    Mutation(
        "index in a file: that of other patterns is taken",
        "csrc/retrieval/index/file.c",
        'SH_REQUIRE(context, number == header->fingerprint, "patterns");',
        "",
        "saved_index",
    ),
    Mutation(
        "index in a file: the map is not kept by a memory that extends another",
        "csrc/binding/operations.c",
        "sh_borrows_index(h->memory) ? Py_XNewRef(old->index_file) : NULL",
        "NULL",
        "saved_index",
    ),
    Mutation(
        "optimiser: numbers of steps forgotten",
        "sparsehopfield/optim.py",
        "        self._steps = steps\n",
        "",
        "optim",
    ),
    Mutation(
        "modules: the second derivative runs on to what an input was made from",
        "sparsehopfield/torch/_layer.py",
        "t.view_as(t) if is_needed else t for t",
        "t for t",
        "modules",
    ),
    Mutation(
        "modules: hooks of inner modules are passed over",
        "sparsehopfield/torch/modules.py",
        "return not hooked and type(module) in NOT_CALLED",
        "return type(module) in NOT_CALLED",
        "modules",
    ),
    Mutation(
        "modules: a backward pass never finds its tape",
        "sparsehopfield/torch/_layer.py",
        "tape = _tape.find(handle, saved)",
        "tape = None",
        "modules",
    ),
    Mutation(
        "modules: an input in two roles counts as two",
        "sparsehopfield/torch/_layer.py",
        "if i > j]",
        "if i >= j]",
        "modules",
    ),
    # --- Python: what people see
    Mutation(
        "notebooks: text of users is markup",
        "sparsehopfield/_engine/html.py",
        'return html.escape(text.encode("utf-8", "backslashreplace").decode("utf-8"))',
        'return text.encode("utf-8", "backslashreplace").decode("utf-8")',
        "notebook_reprs",
    ),
    Mutation(
        "pages: text is markup",
        "sparsehopfield/_engine/html.py",
        "autoescape=True,",
        "autoescape=False,",
        "theory_ledger",
    ),
    Mutation(
        "nearest: of more than the core finds ties go to the last position",
        "sparsehopfield/_engine/call.py",
        "np.lexsort((position, -score, row))",
        "np.lexsort((-position, -score, row))",
        "nearest",
    ),
    Mutation(
        "nearest: later queries exclude what the first ones do",
        "sparsehopfield/_engine/call.py",
        "else executor.exclude[chunk])",
        "else executor.exclude[: chunk.stop - chunk.start])",
        "nearest",
    ),
    Mutation(
        "images: the states of a retrieval are rows",
        "sparsehopfield/_engine/call.py",
        "states.reshape(*shape, *(self.pattern_shape or states.shape[1:]))",
        "states.reshape(*shape, states.shape[1])",
        "pattern_shape",
    ),
    Mutation(
        "images: what comes out is images where there are values",
        "sparsehopfield/_engine/call.py",
        "mixes_patterns = stored.value_storage is None",
        "mixes_patterns = True",
        "pattern_shape",
    ),
    Mutation(
        "images: files that keep their shape have the version of others",
        "sparsehopfield/_engine/files.py",
        '"version": VERSION if model.pattern_shape is None else WITH_SHAPE,',
        '"version": VERSION,',
        "pattern_shape",
    ),
    Mutation(
        "progress: an index that is built on the way is told, too",
        "csrc/retrieval/margins.c",
        "inner.progress = NULL;",
        "",
        "progress",
    ),
    Mutation(
        "progress: what the function raises does not end the call",
        "csrc/binding/call.c",
        "    if (!result) call->raised = 1;",
        "    if (!result) PyErr_Clear();",
        "progress",
    ),
    Mutation(
        "progress: the end is not told where passes were not needed",
        "sparsehopfield/_engine/progress.py",
        "        self._reach(self._total)",
        "        pass",
        "progress",
    ),
]


def files_of(tests: str) -> list[str]:
    """Return the files of tests that a mutation names."""
    return [str(path.relative_to(ROOT)) for name in tests.split() for path in ROOT.glob(f"tests/*/test_{name}.py")]


def surroundings(tree: Path) -> dict[str, str]:
    """Return the environment of a build and of tests in a copy of the tree."""
    compiler = os.environ.get("CC", "cc")
    if shutil.which("ccache") and "ccache" not in compiler:
        compiler = f"ccache {compiler}"
    data = os.environ.get("SPARSEHOPFIELD_DATA") or str(ROOT.parent / "shared" / "data")
    return {
        **os.environ,
        "CC": compiler,
        "CCACHE_NOHASHDIR": "1",  # copies in other folders give the same objects
        "CFLAGS": "-O1",
        "MPLBACKEND": "Agg",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(tree),  # before any installed package
        "SPARSEHOPFIELD_TESTING": "1",  # some tests need the core's hooks
        "SPARSEHOPFIELD_DATA": data,
    }


def build(tree: Path) -> str:
    """Build the core in a copy of the tree; return what went wrong, or nothing."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=tree, env=surroundings(tree), capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr[-2000:]


def ask(tree: Path, files: list[str], *options: str) -> tuple[int | None, str]:
    """Run tests in a copy of the tree; return pytest's exit status, None if it waits for ever, and what it printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", *options, *files]
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=surroundings(tree),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout


def verdict(status: int | None, printed: str) -> tuple[bool, str]:
    """Return whether tests noticed, and how, from what they did."""
    if status is None:
        return True, f"waits for more than {PATIENCE} s"
    if status < 0:
        return True, f"ends the process by signal {-status}"
    failed = [line for line in printed.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if status == 1 and failed:
        return True, failed[0].split(" - ")[0].removeprefix("FAILED ")
    if status == 0:
        return False, "SURVIVED"
    return False, f"TESTS DID NOT RUN: {printed[-500:]}"


def tried(mutation: Mutation, built: Path, room: Path) -> tuple[bool, str]:
    """Make one mutation in a copy of what was built, and return whether tests notice, and how."""
    if fault := mutation.fault(built):
        return False, fault
    with tempfile.TemporaryDirectory(dir=room) as folder:
        tree = Path(folder, "tree")
        shutil.copytree(built, tree)
        path = tree / mutation.file
        path.write_text(path.read_text(encoding="utf-8").replace(mutation.old, mutation.new), encoding="utf-8")
        if mutation.is_c and (error := build(tree)):
            return False, f"DOES NOT BUILD: {error}"
        return verdict(*ask(tree, files_of(mutation.tests)))


def main() -> int:
    """Try the mutations, print a line for each, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORD", help="those whose name or file holds this")
    parser.add_argument("--list", action="store_true", help="print names, places and faults, and do nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="so many at a time")
    parser.add_argument("--sound", action="store_true", help="take it that the tests pass without mutations")
    arguments = parser.parse_args()
    chosen = [m for m in MUTATIONS if arguments.only in m.name or arguments.only in m.file]
    if arguments.list:
        for m in chosen:
            print(f"{m.file}: {m.name} ({m.tests}) {m.fault(ROOT)}".rstrip())
        return int(any(m.fault(ROOT) for m in chosen))
    if not chosen:
        parser.error(f"--only: no mutation's name or file holds {arguments.only!r}")
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        built = Path(folder, "tree")
        shutil.copytree(ROOT, built, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
        if error := build(built):
            print(f"the tree does not build:\n{error}")
            return 1
        where = [sys.executable, "-c", "import sparsehopfield._core as c; print(c.__file__)"]
        found = subprocess.check_output(where, cwd=built, env=surroundings(built), text=True).strip()
        if built.resolve() not in Path(found).resolve().parents:
            print(f"tests would be of another core: {found}")
            return 1
        if not arguments.sound:
            files = sorted({file for m in chosen for file in files_of(m.tests)})
            status, printed = ask(built, files, "-n", str(arguments.jobs))
            if status != 0:
                print(f"without any mutation the tests do not pass:\n{printed[-2000:]}")
                return 1
        survived = 0
        began = time.monotonic()
        with ThreadPoolExecutor(arguments.jobs) as pool:
            for m, (killed, how) in zip(chosen, pool.map(lambda m: tried(m, built, Path(folder)), chosen), strict=True):
                survived += not killed
                print(f"{'killed  ' if killed else 'SURVIVED'} {m.name}: {how}", flush=True)
        print(f"{len(chosen) - survived} of {len(chosen)} mutations noticed, in {time.monotonic() - began:.0f} s")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
