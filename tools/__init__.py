"""What development needs beside the package: code generation, checks, real clusters and engines for tests, the demo."""
