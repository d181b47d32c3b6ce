package main

// Documents that the cases are rendered with. "image" has every field that `docker image inspect` shows, "bare" is an image without the optional ones.
var documents = map[string]string{
	"image": `{
  "Id": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
  "RepoTags": ["registry.corp/base/web:1.2", "web:latest"],
  "RepoDigests": ["registry.corp/base/web@sha256:fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"],
  "Comment": "buildkit.dockerfile.v0",
  "Created": "2026-01-02T03:04:05.678Z",
  "Author": "Ann <ann@example.org>",
  "Config": {
    "User": "1000:1000",
    "ExposedPorts": {"80/tcp": {}, "443/tcp": {}},
    "Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8", "EMPTY="],
    "Entrypoint": ["/entry.sh", "-x"],
    "Cmd": ["nginx", "-g", "daemon off;"],
    "Volumes": {"/data": {}},
    "WorkingDir": "/srv",
    "Labels": {"a.b": "dotted", "maintainer": "Ann & Bob", "version": "1.2", "empty": ""},
    "StopSignal": "SIGQUIT"
  },
  "Architecture": "arm64",
  "Variant": "v8",
  "Os": "linux",
  "Size": 123456789,
  "RootFS": {"Type": "layers", "Layers": ["sha256:aaa", "sha256:bbb", "sha256:ccc"]},
  "Metadata": {"LastTagTime": "2026-02-03T04:05:06Z"}
}`,
	"bare": `{
  "Id": "sha256:00",
  "RepoTags": [],
  "RepoDigests": null,
  "Config": {},
  "Architecture": "amd64",
  "Os": "linux",
  "Size": 0,
  "RootFS": {},
  "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"}
}`,
	"misc": `{
  "i": 42, "zero": 0, "neg": -7, "big": 9007199254740993, "max": 9223372036854775807,
  "f": 1.5, "tiny": 1e-7, "large": 1e21, "avogadro": 6.02214076e+23, "f20": 123456789.25, "round": 3.0,
  "t": true, "n": false, "nothing": null,
  "s": "hello", "empty": "", "uni": "Grüße, 世界 😀", "quote": "a \"b\" \\ c\n\td<&>'", "long": "abcdefghijklmnopqrstuvwxyz",
  "list": ["x", "y", "z"], "ints": [3, 1, 2], "mixed": [1, "two", 3.5, true, null, [1, 2], {"k": "v"}], "elist": [], "words": ["a b", "", "c"],
  "m": {"b": 2, "a": 1, "c": {"d": "deep", "e": [10, 20]}}, "emap": {},
  "people": [{"name": "ann", "age": 30, "tags": ["x"]}, {"name": "bob", "age": 25, "tags": []}],
  "with-dash": "dash", "a.b": "dot", "nested": {"x": {"y": {"z": 1}}},
  "csv": "a,b,c", "space": "  pad  "
}`,
	"string": `"just text"`,
	"number": `5`,
	"null":   `null`,
	"array":  `[{"n": 1}, {"n": 2}]`,
}

// The columns of a listing and their titles.
var headers = [][2]string{
	{"ID", "IMAGE ID"}, {"Repository", "REPOSITORY"}, {"Tag", "TAG"}, {"Digest", "DIGEST"}, {"Size", "SIZE"}, {"CreatedBy", "CREATED BY"},
}

// Rows of a listing, for the table cases.
var rows = []map[string]string{
	{"ID": "0123456789ab", "Repository": "registry.corp/base/web", "Tag": "1.2", "Digest": "<none>", "Size": "123MB", "CreatedBy": "CMD [\"nginx\"]"},
	{"ID": "ba9876543210", "Repository": "db", "Tag": "<none>", "Digest": "sha256:ff", "Size": "0B", "CreatedBy": "RUN a && b"},
	{"ID": "0a", "Repository": "größe/世界", "Tag": "latest", "Digest": "<none>", "Size": "1.5kB", "CreatedBy": ""},
}
