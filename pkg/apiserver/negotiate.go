package apiserver

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/registry"
)

// The transformations that a client may ask for in its Accept header.
const (
	asTable       = "Table"
	asPartial     = "PartialObjectMetadata"
	asPartialList = "PartialObjectMetadataList"
)

// representation is how an answer is encoded.
type representation struct {
	media  registry.MediaType
	as     string // "", asTable, asPartial or asPartialList
	stream bool   // protobuf asked for with stream=watch
	pretty bool
	gzip   bool // the client takes compressed bodies
	// includeObject says what a Table's rows carry.
	includeObject metav1.IncludeObjectPolicy
}

// negotiate chooses a representation of the resource: custom resources have no
// protobuf, but for their metadata.
func (s served) negotiate(r *http.Request) (representation, error) {
	return negotiateAmong(r, true, s.res.Custom != nil)
}

// negotiate chooses the first representation of the Accept header that the
// server has; the error is 406 when there is none.
func negotiate(r *http.Request, transforms bool) (representation, error) {
	return negotiateAmong(r, transforms, false)
}

func negotiateAmong(r *http.Request, transforms, untyped bool) (representation, error) {
	header := strings.Join(r.Header.Values("Accept"), ",")
	if strings.TrimSpace(header) == "" {
		header = "*/*"
	}
	best, bestQ := representation{}, 0.0
	for _, clause := range strings.Split(header, ",") {
		media, params, err := mime.ParseMediaType(strings.TrimSpace(clause))
		if err != nil {
			continue
		}
		q := 1.0
		if s, has := params["q"]; has {
			if q, err = strconv.ParseFloat(s, 64); err != nil {
				continue
			}
		}
		if q <= bestQ {
			continue
		}
		rep, ok := represent(media, params, transforms)
		if ok && !(untyped && rep.media == registry.Protobuf && rep.as == "") {
			best, bestQ = rep, q
		}
	}
	if bestQ == 0 {
		return representation{}, notAcceptable()
	}
	query := r.URL.Query()
	if query.Has("pretty") {
		best.pretty = query.Get("pretty") != "false" && query.Get("pretty") != "0"
	} else {
		agent := r.UserAgent()
		best.pretty = strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
	}
	best.gzip = acceptsGzip(r)
	best.includeObject = metav1.IncludeObjectPolicy(query.Get("includeObject"))
	return best, nil
}

func represent(media string, params map[string]string, transforms bool) (representation, bool) {
	var rep representation
	switch media {
	case "application/json", "*/*", "application/*":
		rep.media = registry.JSON
	case "application/yaml":
		rep.media = registry.YAML
	case "application/vnd.kubernetes.protobuf":
		rep.media = registry.Protobuf
		rep.stream = params["stream"] == "watch"
	default:
		return rep, false
	}
	as := params["as"]
	if as == "" {
		return rep, true
	}
	if !transforms || params["g"] != metav1.GroupName || params["v"] != "v1" && params["v"] != "v1beta1" {
		return rep, false
	}
	switch as {
	case asTable:
		if rep.media == registry.Protobuf {
			return rep, false // Table has no protobuf encoding
		}
	case asPartial, asPartialList:
	default:
		return rep, false
	}
	rep.as = as
	return rep, true
}

// bodyType is the encoding that a request's Content-Type names.
func bodyType(r *http.Request) (registry.MediaType, bool) {
	header := r.Header.Get("Content-Type")
	if header == "" {
		return registry.JSON, true
	}
	media, _, err := mime.ParseMediaType(header)
	if err != nil {
		return "", false
	}
	switch m := registry.MediaType(media); m {
	case registry.JSON, registry.YAML, registry.Protobuf:
		return m, true
	}
	return "", false
}
