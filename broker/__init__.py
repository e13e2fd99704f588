"""The embedded Apache Kafka for users without their own, its topics, and the factories of Kafka clients.

Security, isolation, idempotence and size limits are set here only; every other package takes a `Connection`.
"""
