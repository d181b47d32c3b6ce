// Modules whose test data the archive tests read: image archives and layouts that other projects made. Nothing is
// built from them; `go mod download` puts them into Go's module cache.
module larder.dev/tools/testdata

go 1.24.0

require (
	github.com/aquasecurity/trivy v0.74.0
	github.com/google/go-containerregistry v0.22.1
	github.com/regclient/regclient v0.11.7
)
