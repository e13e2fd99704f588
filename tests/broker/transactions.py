"""Transactions of one record, committed or aborted, for tests."""

from __future__ import annotations

from kafka import KafkaProducer


def committed(producer: KafkaProducer, topic: str, partition: int, value: bytes = b"x") -> None:
    producer.begin_transaction()
    producer.send(topic, value, partition=partition).get(30)
    producer.commit_transaction()


def aborted(producer: KafkaProducer, topic: str, partition: int) -> None:
    producer.begin_transaction()
    producer.send(topic, b"aborted", partition=partition).get(30)
    producer.abort_transaction()
