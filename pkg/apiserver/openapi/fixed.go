package openapi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"

	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
)

// Fixed makes a document of version 3 out of its JSON, for a group version that
// a part of this process serves beside the table. section is its name:
// apis/GROUP/VERSION. It is an error of the program when the text is not an
// OpenAPI document.
func Fixed(section string, text []byte) (Remote, error) {
	parsed, err := openapi_v3.ParseDocument(text)
	if err != nil {
		return Remote{}, fmt.Errorf("read the description of %s: %w", section, err)
	}
	binary, err := proto.MarshalOptions{Deterministic: true}.Marshal(parsed)
	if err != nil {
		return Remote{}, fmt.Errorf("encode the description of %s as protobuf: %w", section, err)
	}
	sum := sha256.Sum256(text)
	hash := hex.EncodeToString(sum[:])
	var bodies [2]*body
	for i, form := range [][]byte{text, binary} {
		bodies[i], err = pack(hash, func(w io.Writer) error {
			_, err := w.Write(form)
			return err
		})
		if err != nil {
			return Remote{}, err
		}
	}
	serve := func(w http.ResponseWriter, r *http.Request) {
		serveDocument(w, r, section, v3ProtoType, func(asProto bool) (*body, error) {
			if asProto {
				return bodies[1], nil
			}
			return bodies[0], nil
		})
	}
	return Remote{URL: hashedURL(section, hash), Handler: http.HandlerFunc(serve)}, nil
}
