# Address and folder are placeholders: engine.py sets both on the command line.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .main),
    (name = "data", disk = (path = "/nonexistent", writable = true)),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);

const main :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "worker.js")],
  compatibilityDate = "2026-01-01",
  durableObjectNamespaces = [(className = "HostedDatabase", uniqueKey = "db", enableSql = true)],
  durableObjectStorage = (localDisk = "data"),
  bindings = [
    (name = "DATABASES", durableObjectNamespace = "HostedDatabase"),
    (name = "IDEMPOTENCY", fromEnvironment = "ENGINE_IDEMPOTENCY"),
  ],
);
