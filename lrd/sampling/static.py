"""Decoding in fixed shapes, so that a token of all rows is one CUDA graph.

A token of a small model is a hundred and more kernels of a few microseconds; launching them one by one takes several
times as long as running them. Here a step reads and writes the same buffers each time: the whole width of the cache is
attended to, what is not filled yet is masked, and nothing waits for the GPU. Rows that have ended go on until the next
look; once half of them have, the others move to buffers of half the size. Off CUDA the same steps run one by one.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrd.sampling import graphs
from lrd.sampling.draw import Drawn, draw
from lrd.sampling.fused import Cache, FusedDecoder

LOOK_EVERY = 16  # tokens; a look waits for the GPU
COLUMNS = 128  # there is room for prompts as wide as a multiple of it, or each width would need graphs of its own
LARGEST = 4 << 30  # bytes of a batch's cache; with larger ones launches are not what takes the time, and memory is


class StaticDecoder:
    """Completes batches with a decoder's weights, which have to stay where they are in memory."""

    def __init__(self, decoder: FusedDecoder):
        self._decoder = decoder
        self._buffers: dict[tuple, Buffers] = {}
        self._pool = torch.cuda.graph_pool_handle() if decoder.device.type == "cuda" else None

    def fits(self, rows: int, width: int, room: int) -> bool:
        """Whether buffers for such a batch are worth their memory: it is kept, and smaller ones take as much again."""
        return self._decoder.bytes(graphs.rows(rows), _columns(width) + _columns(room)) <= LARGEST

    def sample(
        self,
        ids: Int[Tensor, "N S"],
        mask: Bool[Tensor, "N S"],
        uniform: Float[Tensor, "T N"],
        eos: Int[Tensor, " E"],
        temperature: float,
        top_p: float,
    ) -> Drawn:
        """One completion a row, by its column of uniform numbers and up to as many tokens."""
        key = _columns(ids.shape[1]), len(uniform), temperature, top_p
        drawn, origin = Drawn.empty(uniform), torch.arange(len(ids), device=uniform.device)
        now = self._buffers_for(len(ids), eos, *key)
        now.start(ids, mask, uniform)
        for t in range(1, len(uniform)):
            if t % LOOK_EVERY == 0:
                running = (~now.ended).nonzero()[:, 0]
                if not len(running):
                    break
                if len(running) <= now.rows // 2 and now.rows > graphs.ROWS:
                    now.write(drawn, origin)
                    smaller = self._buffers_for(len(running), eos, *key)
                    smaller.go_on(now, running)
                    now, origin = smaller, origin[running]
            now.advance()
        now.write(drawn, origin)
        return drawn

    def _buffers_for(self, count: int, eos: Tensor, width: int, room: int, temperature: float, top_p: float):
        """The smallest buffers with room for so many rows, made and captured at their first use."""
        rows = graphs.rows(count)
        key = rows, width, room, temperature, top_p
        if key not in self._buffers:
            self._buffers[key] = Buffers(self._decoder, rows, width, room, eos, temperature, top_p)
            self._buffers[key].capture(self._pool)
        return self._buffers[key]


def _columns(count: int) -> int:
    return -(-count // COLUMNS) * COLUMNS


class Buffers:
    """All that a step reads and writes, for a number of rows; those that nobody asked for count as ended."""

    def __init__(self, decoder: FusedDecoder, rows: int, width: int, room: int, eos: Tensor, temperature, top_p):
        self.rows, self._decoder, self._eos = rows, decoder, eos
        self._temperature, self._top_p = temperature, top_p
        self._graph: torch.cuda.CUDAGraph | None = None
        self.cache: Cache = decoder.empty(rows, width + _columns(room))
        on = decoder.device
        self.filled, self.t = (torch.zeros(1, dtype=torch.long, device=on) for _ in range(2))
        self.uniform, self.logps = (torch.zeros(room, rows, device=on) for _ in range(2))
        self.tokens = torch.zeros(room, rows, dtype=torch.long, device=on)
        self.token, self.length = (torch.zeros(rows, dtype=torch.long, device=on) for _ in range(2))
        self.ended = torch.ones(rows, dtype=torch.bool, device=on)

    def capture(self, pool) -> None:
        """Records a step as a graph; leaves nothing behind that `start` and `go_on` do not overwrite."""
        if self.cache.bias.device.type != "cuda":
            return

        def afresh() -> None:
            self.t.zero_()
            self.filled.zero_()

        self._graph, _ = graphs.capture(self._step, pool, before=afresh)

    def start(self, ids: Int[Tensor, "N S"], mask: Bool[Tensor, "N S"], uniform: Float[Tensor, "T N"]) -> None:
        """Reads the prompts and draws their first tokens."""
        n, width = ids.shape
        logits = self._decoder.prefill(ids, mask, 0)
        self.cache.take(self._decoder.cache)
        self.uniform[:, :n] = uniform
        self.length.fill_(len(uniform))
        self.ended.fill_(True)
        self.ended[:n] = False
        self.filled.fill_(width)
        self.t.zero_()
        spare = self.rows - n
        self._record(torch.cat([logits, logits[:1].expand(spare, -1)]) if spare else logits)

    def go_on(self, other: "Buffers", running: Int[Tensor, " R"]) -> None:
        """Takes over the rows of larger buffers that are still running."""
        n = len(running)
        self.cache.take(other.cache, running)
        for name in ("uniform", "tokens", "logps"):
            getattr(self, name)[:, :n] = getattr(other, name)[:, running]
        self.token[:n], self.length[:n] = other.token[running], other.length[running]
        self.ended.fill_(True)
        self.ended[:n] = False
        self.filled.copy_(other.filled)
        self.t.copy_(other.t)

    def write(self, drawn: Drawn, origin: Int[Tensor, " R"]) -> None:
        """Copies what the first rows have so far to the rows that they were before."""
        n = len(origin)
        drawn.tokens[origin], drawn.logps[origin] = self.tokens[:, :n].t(), self.logps[:, :n].t()
        drawn.length[origin], drawn.ended[origin] = self.length[:n], self.ended[:n]

    def advance(self) -> None:
        """One more token a row."""
        if self._graph is not None:
            self._graph.replay()
        else:
            self._step()

    def _step(self) -> None:
        self.cache.bias.index_fill_(3, self.filled, 0)
        ids, positions = self.token[:, None], self.cache.position[:, None]
        logits = self._decoder.forward(ids, positions, self.cache, self.filled, self.cache.bias)
        self.filled += 1
        self.cache.position += 1
        self._record(logits)

    def _record(self, logits: Float[Tensor, "B V"]) -> None:
        chosen = draw(logits, self.uniform.index_select(0, self.t)[0], self._temperature, self._top_p)
        logps = torch.log_softmax(logits, -1).gather(1, chosen[:, None])
        self.tokens.index_copy_(0, self.t, chosen[None])
        self.logps.index_copy_(0, self.t, logps.t())
        self.t += 1
        stops = (chosen[:, None] == self._eos).any(1) & ~self.ended
        self.length.copy_(torch.where(stops, self.t, self.length))
        self.ended |= stops
        self.token.copy_(chosen)
