"""The code family in the consumers: documents as windows of tokens, for the tokenizer in use."""
