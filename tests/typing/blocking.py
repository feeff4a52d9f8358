"""What a type checker has to find out about `aioiroh.sync`; `make types` checks it, nothing runs it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import assert_type

from aioiroh import EndpointAddr, sync
from aioiroh.blobs import BlobTicket, Got, Progress
from aioiroh.sync import blobs


def shout(connection: sync.Connection) -> None:
    for stream in connection.incoming_bi():
        with stream:
            stream.write(stream.read_all(limit=1024).upper())


def exchange() -> None:
    handlers = {b"shout/1": shout}
    with sync.serve(handlers) as router, sync.Endpoint.bind() as client, sync.timeout(5):
        assert_type(router.endpoint, sync.Endpoint)
        assert_type(router.endpoint.addr, EndpointAddr)
        with client.connect(router.endpoint.addr, alpn=b"shout/1") as connection:
            send, recv = connection.open_bi()
            assert_type(send.write(b"hello"), None)
            assert_type(recv.read(), bytes)
            for datagram in connection.datagrams():
                assert_type(datagram, bytes)
            connection.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def transfer(client: sync.Endpoint, ticket: BlobTicket) -> None:
    with blobs.MemoryStore() as ours, blobs.FileStore.open("theirs") as theirs:
        blobs.Provider(ours, authorize=lambda request: request.remote_id == client.id)
        getting = blobs.get(client, ticket, into=theirs)
        for progress in getting:
            assert_type(progress, Progress)
        assert_type(getting.result(), Got)
        assert_type(getting.start(), Future[Got])
        with theirs.reader(ticket.hash) as reader:
            assert_type(reader.read_at(0, 10), bytes)
    with blobs.BucketStore.open("s3://bucket", staging="staging") as store:
        assert_type(store.pending, int)
        blobs.get(client, ticket, into=store).result()
