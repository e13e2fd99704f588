"""The broker: Apache Kafka embedded for those who have none, its topics, and the client factories.

Security, isolation, idempotence and size limits are set here once; every other package takes a `Connection`.
"""
