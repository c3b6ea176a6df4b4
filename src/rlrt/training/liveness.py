"""A rank that dies ends the others, within seconds and with one sentence.

A process blocked in a collective with a dead one waits for the group's timeout, which is long, since a
rank may wait hours for another one's sampling. So every rank keeps a connection to rank 0, on which
nothing is sent while all is well: the kernel of a dead process closes its end. There is no heartbeat
that a long generation could miss; a host that is gone is noticed by TCP's own keepalive.

No launcher does all of it: torchrun ends the processes of a machine when one of them has ended, Lightning's
own launcher those that it has started. None says in one sentence which rank stopped the run, why, and how
to go on, and none ends a rank that is blocked while another one still unwinds its error.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import lightning as L

from rlrt import distributed
from rlrt.errors import RunStoppedError, UserError

STATUS = 3  # of a process that ends because another has; as of every run that cannot go on
CONNECT_S = 60.0  # for all ranks to reach rank 0
GREETING_S = 10.0
GRACE_S = 3.0  # between the word that an error stops a rank and the end of the others: they may be
# about to stop by the same error, and then each says its own
UNWIND_S = 1.0  # how much later than a collective's error the news of a dead rank may come
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # s, s, probes: 25 s in all
BYE, STOPS, DIED = "bye", "stops", "died"
INTERRUPTED, INTERRUPTED_STATUS = "interrupted", 130


class News(NamedTuple):
    """What one rank tells another about a rank, and why that one stops."""

    word: str  # BYE, STOPS or DIED
    rank: int
    reason: str = ""


class RankWatch(L.Callback):
    """Watches over the ranks of the run in ``folder``; one process alone has nothing to watch.

    It begins with the setup of the fit, once the ranks are connected, and ends with the ``with``
    block: in good order, or by telling the others which error stops this rank. ``settings`` are this
    rank's by name; all ranks must have the same.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._settings = dict(settings or {})
        self._peers: list[Peer] = []
        self._died = threading.Event()
        self._leaves = False  # whether this rank needs the others no more

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.stop()
        else:
            self.fail(error)

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        self.start()
        folders = distributed.all_gather_object(str(self.folder.resolve()))
        if len(set(folders)) > 1:
            raise UserError(
                f"the ranks have different run folders ({folders[0]} and others): name one for all by "
                "hydra.run.dir"
            )
        self.require_same_settings()
        for thread in threading.enumerate():
            if thread.name == "child-process-observer":  # Lightning's own: it kills without a word
                thread._child_processes = []  # type: ignore[attr-defined] # no public way

    def require_same_settings(self) -> None:
        """UserError that names the first setting in which a rank differs from rank 0; collective."""
        first, *others = distributed.all_gather_object(self._settings)
        for rank, other in enumerate(others, 1):
            for name in sorted(first.keys() | other.keys()):
                if first.get(name) != other.get(name):
                    raise UserError(
                        f"{name} is {first.get(name, 'not set')} on rank 0 and "
                        f"{other.get(name, 'not set')} on rank {rank}: start all ranks with the same "
                        "settings"
                    )

    def on_exception(
        self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException
    ) -> None:
        self.fail(exception)  # before the trainer's teardown, which may wait for the others

    def start(self) -> None:
        """Connect the ranks; collective. RunStoppedError where one does not reach rank 0."""
        if distributed.get_world_size() == 1 or self._peers:
            return
        # the group may end before this
        self._rank, self._size = distributed.get_rank(), distributed.get_world_size()
        self._peers = _accepted() if self._rank == 0 else [_connected()]
        # a child would keep the connection of a dead rank open
        os.register_at_fork(after_in_child=self._forget)
        for peer in self._peers:
            threading.Thread(target=self._watch, args=(peer,), daemon=True).start()

    def stop(self) -> None:
        """This rank's part of the run is over, and the others go on without it."""
        if self._peers and not self._leaves:
            self._leaves = True
            self._tell(News(BYE, self._rank))

    def fail(self, error: BaseException) -> None:
        """Tell the others that this error stops this rank; return when they have ended or know why.

        Does not return where the error came of a rank that has died: the watch ends this process.
        """
        if self._leaves or not self._peers:
            return
        if self._died.wait(UNWIND_S):
            time.sleep(2 * UNWIND_S)
        self._leaves = True
        self._tell(News(STOPS, self._rank, _reason(error)))
        until = time.monotonic() + GRACE_S + UNWIND_S
        for peer in self._peers:
            peer.left.wait(max(until - time.monotonic(), 0.0))

    def _watch(self, peer: "Peer") -> None:
        """Follow what the other end says until it has left; end this process where it must."""
        for news in peer.news():
            if news.word == BYE:
                peer.left.set()
                return
            if news.word == DIED:
                self._died.set()
            self._tell(news, but=peer)
            if news.rank == peer.rank:
                peer.left.set()
            if news.word == STOPS:
                time.sleep(GRACE_S)
            self._end(news)

    def _tell(self, news: News, but: "Peer | None" = None) -> None:
        for peer in self._peers:
            if peer is not but:
                peer.tell(news)

    def _end(self, news: News) -> None:
        """End this process at once: no exception reaches a thread that is blocked in a collective."""
        if self._leaves:
            return
        interrupted = news.reason == INTERRUPTED
        # one sentence in all where they share a screen: rank 0 says its own error itself
        if self._rank == 0 or (news.rank == 0 and news.word == DIED):
            fate = "has died" if news.word == DIED else f"has stopped ({news.reason})"
            what = f"rank {news.rank} of {self._size} {fate}; the others stop"
            cure = f"go on with resume={self.folder} hydra.run.dir={self.folder}"
            with suppress(OSError):  # and not through sys.stderr, whose lock a thread may hold
                os.write(2, f"error: {INTERRUPTED if interrupted else what}; {cure}\n".encode())
        os._exit(INTERRUPTED_STATUS if interrupted else STATUS)

    def _forget(self) -> None:
        """Close a child's descriptors alone; the connections live on in their parent."""
        for peer in self._peers:
            os.close(peer.socket.detach())


class Peer:
    """The connection to another rank."""

    def __init__(self, connection: socket.socket, rank: int) -> None:
        self.rank = rank
        self.left = threading.Event()  # or has told why it leaves
        self.socket = connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):  # not on every system
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        connection.settimeout(None)

    def news(self) -> Iterator[News]:
        """What it says, and last that it has died: the kernel closes a dead process's connection."""
        with suppress(OSError):
            while line := _read_line(self.socket):
                yield News(*json.loads(line))
        yield News(DIED, self.rank)

    def tell(self, news: News) -> None:
        with suppress(OSError):  # it has left
            self.socket.sendall(json.dumps(news).encode() + b"\n")


def _accepted() -> list[Peer]:
    """Rank 0's connections, one from every other rank; what else knocks at the port is sent away."""
    secret, dual = secrets.token_hex(16), socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    with socket.create_server(("", 0), family=family, dualstack_ipv6=dual) as server:
        host = os.environ.get("MASTER_ADDR") or socket.gethostname()
        distributed.all_gather_object((host, server.getsockname()[1], secret))
        until = time.monotonic() + CONNECT_S
        peers: dict[int, Peer] = {}
        while len(peers) < distributed.get_world_size() - 1:
            server.settimeout(max(until - time.monotonic(), 0.001))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                missing = sorted(set(range(1, distributed.get_world_size())) - peers.keys())
                raise RunStoppedError(
                    f"ranks {missing} have not reached rank 0 at {host} within {CONNECT_S:.0f} s"
                ) from None
            connection.settimeout(GREETING_S)
            with suppress(OSError):
                word, _, number = _read_line(connection).decode(errors="replace").partition(" ")
                if secrets.compare_digest(word.encode(), secret.encode()):
                    peers[int(number)] = Peer(connection, int(number))
                    continue
            connection.close()
    return list(peers.values())


def _connected() -> Peer:
    """This rank's connection to rank 0."""
    host, port, secret = distributed.all_gather_object(("", 0, ""))[0]
    try:
        connection = socket.create_connection((host, port), CONNECT_S)
    except OSError as error:
        raise RunStoppedError(
            f"rank {distributed.get_rank()} cannot reach rank 0 at {host}, port {port} ({error})"
        ) from error
    connection.sendall(f"{secret} {distributed.get_rank()}\n".encode())
    return Peer(connection, 0)


def _read_line(connection: socket.socket) -> bytes:
    """The next line without its end; empty where there is none. A reason is short: byte by byte."""
    line = b""
    while (byte := connection.recv(1)) and byte != b"\n":
        line += byte
    return line if byte else b""


def _reason(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    first = str(error).strip().partition("\n")[0]
    if isinstance(error, UserError | RunStoppedError):
        return first
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
