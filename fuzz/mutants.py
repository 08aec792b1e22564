"""Mistakes that tests must notice: each is a text of one file, and what stands there instead.

A guard is dropped, operands change places, a lifetime ends early, an offset is off by one. What
only costs time, such as a worse choice of what to fuse, is not among them.
"""

from typing import NamedTuple

PASSES, RUNTIME, CACHING = "numtape/passes/", "numtape/runtime/", "numtape/caching/"
IR, TRACER = "numtape/ir/", "numtape/tracer/"
# The tests that look at a file most closely; those of random programs come behind them all.
TESTS = {
    "broadcasts.py": ("test_passes",),
    "copies.py": ("test_passes",),
    "dense_inputs.py": ("test_exact",),
    "folding.py": ("test_passes",),
    "fusion.py": ("test_fusion",),
    "gains.py": ("test_gains",),
    "identities.py": ("test_passes",),
    "old_values.py": ("test_passes", "test_runtime"),
    "products.py": ("test_passes",),
    "recompute.py": ("test_recompute",),
    "renewals.py": ("test_memory_passes", "test_recompute"),
    "rewrite.py": ("test_passes",),
    "scheduling.py": ("test_memory_passes", "test_passes"),
    "sums.py": ("test_passes",),
    "views.py": ("test_passes",),
    "arena.py": ("test_plan",),
    "blocks.py": ("test_in_flight", "test_cache", "test_threads"),
    "commit.py": ("test_interrupts",),
    "joins.py": ("test_joins",),
    "layout.py": ("test_plan", "test_runtime", "test_interrupts"),
    "lifetimes.py": ("test_plan", "test_runtime", "test_fusion", "test_interrupts", "test_joins"),
    "loops.py": ("test_fusion",),
    "lowering.py": ("test_plan", "test_runtime"),
    "memory.py": ("test_joins", "test_plan"),
    "moving.py": ("test_joins", "test_bundles"),
    "plan.py": ("test_plan", "test_interrupts", "test_joins"),
    "tiles.py": ("test_fusion", "test_plan"),
    "signatures.py": ("test_cache", "test_captured", "test_calls", "test_aliases"),
    "tapes.py": ("test_cache",),
}


class Mutant(NamedTuple):
    """`text`, which stands once in the file, becomes `instead`."""

    file: str
    text: str
    instead: str


def _of(file: str, *pairs: tuple[str, str]) -> tuple[Mutant, ...]:
    return tuple(Mutant(file, *pair) for pair in pairs)


MUTANTS = (
    *_of(
        PASSES + "identities.py",
        ("> 0:  # -0 - -0 is 0", "<= 2:  # -0 - -0 is 0"),
        ("return x - y.inputs[0]", "return y.inputs[0] - x"),
        ("return x if root.op.view is None else None", "return x"),
        ("if same and x.shape == (stops[-1],) else None", "if same else None"),
        ('[v.attrs["bounds"] for v in parts] == whole', "whole"),
        ("inputs[0].ndim != 1 or any", "any"),
        ("if x.op is neg else None", "if x.op.entrywise else None"),
        (
            'if x.dtype == attrs["dtype"] else None',
            "if x.dtype.kind == attrs['dtype'].kind else None",
        ),
        ("if x is y and x.shape == condition.shape:", "if x is y:"),
        ("tuple(inner[a] for a in axes)", "tuple(axes[a] for a in inner)"),
        (
            "if is_number(y, -1):  # x * -1 = -x\n            return neg(x)",
            "if is_number(y, -1):\n            return x",
        ),
        ("return x if whole else None", "return x if x.ndim else None"),
        ("bare is None or shape_of(bare) != shape_of(inputs)", "bare is None"),
        ("if not op.entrywise or broadcast_op", "if broadcast_op"),
    ),
    *_of(
        PASSES + "views.py",
        ("if moved == sorted(moved):", "if moved == sorted(moved) or len(moved) == 2:"),
        ('x.op is place and x.attrs["bounds"] == bounds', "x.op is place"),
        ("offset <= start <= stop <= end", "offset <= start <= end"),
        ("(start - offset, stop - offset, 1)", "(start, stop, 1)"),
        ("if step == 1 and offset", "if offset"),
        ("or a[axis][1] != b[axis][0]:", "or a[axis][1] > b[axis][0] + 9:"),
        ("if len(differing) != 1:", "if not differing:"),
        ('x.attrs.get("fill", 0.0) != 0.0 or y.attrs.get("fill", 0.0) != 0.0', "False"),
        (
            'if x.op is concatenate_op and x.attrs["axis"] == axis else (x,)',
            "if x.op is concatenate_op else (x,)",
        ),
        ("source.ndim > axis and source.shape[:axis] == x.shape[:axis]", "source.ndim > axis"),
    ),
    *_of(
        PASSES + "sums.py",
        ("return (total * count)", "return (total + 0.0)"),
        ("if not repeated or not x.size:", "if not repeated:"),
        ("all(v.shape[-1:] == (length,) for v in x.inputs)", "True"),
        ("ones = filled(shape=(length,), value=1.0", "ones = filled(shape=(length,), value=2.0"),
        (
            "if axis == tuple(range(x.ndim - 1)) and x.ndim > 1:",
            "if len(axis) == x.ndim - 1 and x.ndim > 1:",
        ),
    ),
    *_of(
        PASSES + "gains.py",
        ("scaled.pays and results.isdisjoint(scaled.replaced)", "scaled.pays"),
        ("or not _is_weight_gradient(late[0], y, back[0]):", ":"),
        ("is _activation(y) and len(sums) == 1", "is not None and len(sums) == 1"),
        ("len(sums) == 1 and _sums_rows(sums[0])", "len(sums) == 1"),
        ("whole and _flat(rows) is y and", "whole and"),
        ("mul(weight, _gain_of(y)).transpose()", "weight.transpose()"),
        ("mul(_products(g, z), weight).sum(0)", "_products(g, z).sum(0)"),
    ),
    *_of(
        PASSES + "products.py",
        (
            "matmul_op(b.transpose(1, 0), a.transpose(1, 0))",
            "matmul_op(a.transpose(1, 0), b.transpose(1, 0))",
        ),
        ("if len(readers[product]) > 1 or product in results:", "if product in results:"),
    ),
    *_of(
        PASSES + "copies.py",
        ('attrs["axis"] = axes.index(attrs["axis"])', 'attrs["axis"] = axes[attrs["axis"]]'),
        ("back = tuple(axes.index(i) for i in range(len(axes)))", "back = axes"),
        ("all(v.ndim in (0, x.ndim) for v in x.inputs)", "True"),
    ),
    *_of(
        PASSES + "broadcasts.py",
        (".broadcast_to(shape_of(inputs))", ""),
        ("if small.size == 1 else None", "if small.ndim <= 1 else None"),
    ),
    *_of(
        PASSES + "folding.py",
        ("if result.shape != ():", "if False:"),
        ("op.kernel(*(np.asarray(v.attrs", "op.kernel(*(np.asarray(v.inputs and v.attrs"),
        (
            "return current().lift(shortest(out), result.dtype)",
            "return current().lift(round(shortest(out), 3), result.dtype)",
        ),
    ),
    *_of(
        PASSES + "dense_inputs.py",
        ("value.op.view is None and value.op is not INPUT", "value.op.view is None"),
        (
            "if op.ordered is None or all(map(_is_dense, inputs)):",
            "if op.ordered is None or any(map(_is_dense, inputs)):",
        ),
    ),
    *_of(
        PASSES + "old_values.py",
        ("if root_of(v) not in updated:", "if v not in updated:"),
        ("new if new is old else kept(new)", "new"),
        ("outputs = tuple(map(kept, graph.outputs))", "outputs = graph.outputs"),
        ("(is_view or node not in first)", "(node not in first)"),
        ("*(late.get(v, v) for v in graph.outputs[count:])", "*graph.outputs[count:]"),
        ("return _shown(_read_late(graph, updated), updated)", "return _shown(graph, updated)"),
    ),
    *_of(
        PASSES + "fusion.py",
        ("return self.nodes.keys() >= self.pending.intersection(node.inputs)", "return True"),
        (
            "if value.ndim != deepest:\n        return False",
            "if value.ndim > deepest:\n        return False",
        ),
        (
            "if value.rows[: len(rows)] != rows:\n            return False",
            "if False:\n            return False",
        ),
        ("rows = self.rows[: unmoved(self.rows, rows)]", "rows = self.rows"),
        (
            "return all(_aligned(v, rows, deepest) for v, root in inputs if root in self.work)",
            "return True",
        ),
    ),
    *_of(
        PASSES + "recompute.py",
        ("over = any(last.get(u) == made[v]", "over = any(last.get(u) != made[v]"),
        ("self.new.get(v, v)) for into, v in old.updates", "v) for into, v in old.updates"),
        ("change[stop + 1] -= v.nbytes", "change[stop] -= v.nbytes"),
        ("self.first.get(v, start) >= start", "self.first.get(v, start) > start"),
    ),
    *_of(
        PASSES + "renewals.py",
        (" and len(sources) < 2", ""),
        ("- {root[v] for v in graph.results}", ""),
    ),
    *_of(
        PASSES + "scheduling.py",
        ("root not in self.kept and", ""),
        ("min(self.at[node], self._earliest(node))", "self._earliest(node)"),
        ("return max(before) + 1e-6", "return min(before) + 1e-6"),
        ("if root.inputs and root", "if root"),
    ),
    *_of(
        PASSES + "rewrite.py",
        (
            "((new[old], new[v]) for old, v in graph.updates)",
            "((new[old], new[old]) for old, v in graph.updates)",
        ),
        ("live.update(node.inputs)", "live.update(node.inputs[:2])"),
    ),
    *_of(
        RUNTIME + "lifetimes.py",
        ("stop[root] = i\n", "stop.setdefault(root, i)\n"),
        ("or lives.stop[owner] != at:", ":"),
        ("if places[owner].outside or owner in kept or", "if owner in kept or"),
        ("if places[owner].outside or owner in kept or", "if places[owner].outside or"),
        (
            "if not places[v].contiguous or v.shape != node.shape or v.dtype != node.dtype:",
            "if v.shape != node.shape or v.dtype != node.dtype:",
        ),
        ("or v.shape != node.shape or v.dtype != node.dtype:", "or v.dtype != node.dtype:"),
        ("if position not in node.op.inplace and not node.op.entrywise:", "if False:"),
        ("if last > made[node] or (last", "if (last"),
        ("v in made and stop[v] == made[node] and", "v in made and"),
        ("not places[old].contiguous or not places[old].writeable", "not places[old].writeable"),
        ("read = first if is_early else len(order)", "read = first"),
        ("stop[root] = max(stop.get(root, -1), read)", "stop[root] = read"),
        ("lives.stop[donors[0]] = last", "pass"),
        ("lives.stop[owner] = at[stop].stop if stop in at else stop", "pass"),
        ("lives.start[owner] = at[start].start if start in at else start", "pass"),
        ("and not _by_rows(v, root, node, tiles, places)", "and False"),
        ("aligned and rows and places[value].contiguous", "aligned and places[value].contiguous"),
        (
            "_open(lives, root, first if late else -1",
            "_open(lives, root, first + 1 if late else -1",
        ),
        ("<= lives.stop[v] < i)", "<= i)"),
        ("_open(lives, value, -1, end)", "_open(lives, value, -1, 0)"),
        ("if made[node] < safe:", "if False:"),
        ("and tiles.inside.issuperset(sharing[owner])", ""),
        ("or not whole:", ":"),
        ("source.type[:2] != root.type[:2] or", ""),
        ("return same and offset(new, places) == offset(old, places)", "return same"),
        ("same = place.root is source and", "same ="),
    ),
    *_of(
        RUNTIME + "joins.py",
        ("kept = set(map(root_of, graph.results))", "kept = set()"),
        ("kept |= {old for old, _ in graph.updates}", "pass"),
        ("kept.update(sources)", "pass"),
        ("if len(arrays) == len(sources) and lie_end_to_end(arrays):", "if arrays:"),
    ),
    *_of(
        RUNTIME + "arena.py",
        ("(starts[:i] <= stops[i])", "(starts[:i] < stops[i])"),
        ("(stops[:i] >= starts[i])", "(stops[:i] > starts[i])"),
        ("ends[i] = lows[i] + size", "ends[i] = lows[i] + size - 64"),
        ("(lows[1:] - ends[:-1] >= wanted)", "(lows[1:] - ends[:-1] >= wanted - 64)"),
        ("ends = np.maximum.accumulate(ends[order])", "ends = ends[order]"),
        ("offsets[order] = lows", "offsets[:] = lows"),
    ),
    *_of(
        IR + "memory.py",
        ("return -(-nbytes // ALIGNMENT) * ALIGNMENT", "return nbytes // ALIGNMENT * ALIGNMENT"),
        ("return block[start : start + nbytes]", "return block[:nbytes]"),
        ("address(a) + a.nbytes == address(b)", "address(a) + a.nbytes <= address(b)"),
        ("all(holder(a) is held for a in arrays)", "True"),
        ("for a in (held, *arrays))", "for a in (held,))"),
        ("and a.dtype == arrays[0].dtype", ""),
    ),
    *_of(
        TRACER + "moving.py",
        ("return _holders(tensor) == _holders(Tensor(np.zeros(1)))", "return True"),
        ("flags.owndata and", ""),
        ("and flags.writeable", ""),
        ("start += t.size", "start += t.ndim"),
    ),
    *_of(
        RUNTIME + "layout.py",
        ("if node.op is dense and not lies_dense(prototype, **node.attrs):", "if False:"),
        (
            "return prototype.reshape(node.shape, copy=False)",
            "return prototype.reshape(node.shape)",
        ),
        ("key=lambda v: v not in leading)", "key=lambda v: v in leading)"),
        ("if v in fixed and is_work(v, places)", "if is_work(v, places)"),
        ("return node.op is wrap_index or not", "return not"),
    ),
    *_of(
        RUNTIME + "tiles.py",
        ("if last.get(v, stop) <= stop)", "if last.get(v, stop) <= stop + 1)"),
        ("if j != i + 1 or j == first]", "if j != i + 1]"),
        ("if length % n == 0), default=1)", "), default=1)"),
        (
            "return (*ahead, self.step, *shape[self.axis + 1 :])",
            "return (*ahead, self.step, *shape[self.axis + 2 :])",
        ),
    ),
    *_of(
        RUNTIME + "loops.py",
        ("if step and length > 1 else", "if step else"),
        ("enumerate(value.shape, deepest - value.ndim)", "enumerate(value.shape)"),
        ("LETTERS[axis] if axis <= self.tiles.axis", "LETTERS[0] if axis <= self.tiles.axis"),
        (
            '"" if self._held(value) else self._index(value, deepest)',
            "self._index(value, deepest)",
        ),
    ),
    *_of(
        RUNTIME + "lowering.py",
        (
            "stacked and places[x].contiguous and places[node].contiguous",
            "stacked and places[node].contiguous",
        ),
        (
            "return Call(np.copyto, ((x, None),), (node, x.shape), {})",
            "return Call(np.copyto, ((x, None),), (node, None), {})",
        ),
        (
            "((x, (rows, x.shape[-1])), (y, None)), (node, (rows, node.shape[-1])), {}",
            "((x, (rows, x.shape[-1])), (y, None)), (node, None), {}",
        ),
    ),
    *_of(
        RUNTIME + "plan.py",
        (
            "commit = next(writes, first)",
            "commit = first",
        ),
        (
            "return next((t.start for t in tilings if t.start <= commit <= t.stop), commit)",
            "return commit",
        ),
        ("total += aligned(v.nbytes)", "total += v.nbytes // 2"),
        ("any(np.may_share_memory(place.prototype, p) for p in", "any(True for p in"),
    ),
    *_of(
        RUNTIME + "commit.py",
        ("rest = partial(uninterrupted, action, signals[i + 1 :])", "rest = action"),
        ("        _signal.signal(number, handler)", "        pass"),
        ("        if arrived:", "        if False:"),
        ("self._noted.clear()", "pass"),
        ('np.errstate(all="call", call=self._note)(action)', "action"),
        ('if wanted == "warn":', 'if wanted == "ignore":'),
    ),
    *_of(
        RUNTIME + "blocks.py",
        ("block = self._returned.pop()", "block = self._returned[-1]"),
        ("self._free.remove(largest)", "pass"),
        ("if _size(block) >= nbytes:\n            return block", "return block"),
        ("if largest is not None and _size(largest) >= nbytes:", "if largest is not None:"),
        ("self._outside = reserve(fixed), *captured", "self._outside = self.arena, *captured"),
    ),
    *_of(
        CACHING + "tapes.py",
        ("if tape.current():", "if True:"),
        ("self._used.move_to_end(tape)", "pass"),
        ("(*self.of(key), tape)", "(tape,)"),
        ("count > self.most or (", "("),
        ("+ sum(held.values())", ""),
        ("self._kept[key] = (*self._without(key, tape), tape)", "pass"),
    ),
    *_of(
        CACHING + "signatures.py",
        ("return (nesting, grad_enabled(), ", "return (nesting, True, "),
        ("_repeats(leaves), *map(_signature, leaves))", "(), *map(_signature, leaves))"),
        ("return leaf.dtype, leaf.shape, False", "return leaf.dtype, leaf.shape[1:], False"),
        ("*leaf.type, leaf.requires_grad, leaf._grad", "*leaf.type, True, leaf._grad"),
        ("leaf.requires_grad, leaf._grad is None", "leaf.requires_grad, True"),
    ),
)
