package placement

import _ "embed"

//go:embed openapi.json
var openAPI []byte // never changed

// OpenAPI is the description of the group version, an OpenAPI 3.0 document.
func OpenAPI() []byte { return openAPI }
