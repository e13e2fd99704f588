"""The producer of the code family: documents from directories, repositories, crates and packages."""
