package apiserver

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"coracle/pkg/registry"
)

// maxBody bounds a request body (upstream's limit).
const maxBody = 3 << 20

// readBody reads a request body within the limit.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	body := http.MaxBytesReader(w, r.Body, maxBody)
	if r.ContentLength <= 0 || r.ContentLength > trustedLength {
		return io.ReadAll(body)
	}
	data := make([]byte, 0, r.ContentLength+1) // one more, to see the end
	for {
		n, err := body.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		switch {
		case err == io.EOF:
			return data, nil
		case err != nil:
			return data, err
		case len(data) == cap(data): // the length was not true
			data = append(data, 0)[:len(data)]
		}
	}
}

// readTyped reads a request body that is in one of the encodings of objects.
func readTyped(w http.ResponseWriter, r *http.Request) ([]byte, registry.MediaType, error) {
	media, ok := bodyType(r)
	if !ok {
		return nil, "", unsupportedMediaType(r.Header.Get("Content-Type"))
	}
	data, err := readBody(w, r)
	return data, media, err
}

// trustedLength bounds the room that a body is given because of the length that
// a client says it has.
const trustedLength = 64 << 10

// decodeBody reads and decodes a request body as the kind that is served.
func (s *Server) decodeBody(w http.ResponseWriter, r *http.Request, sv served, validation registry.Validation) (runtime.Object, error) {
	data, media, err := readTyped(w, r)
	if err != nil {
		return nil, err
	}
	if sv.view == nil {
		return s.decoder.DecodeFor(sv.res, data, media, validation, warner(r.Context()))
	}
	obj, err := s.decoder.Decode(data, media, sv.gvk(), validation, warner(r.Context()))
	if err != nil {
		return nil, err
	}
	if obj, err = sv.view.From(obj); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return obj, nil
}

func (s *Server) serveCreate(w http.ResponseWriter, r *http.Request, sv served, req registry.Request) error {
	rep, err := sv.negotiate(r)
	if err != nil {
		return err
	}
	opts, validation, err := writeOptions(r, &metav1.CreateOptions{})
	if err != nil {
		return err
	}
	obj, err := s.decodeBody(w, r, sv, validation)
	if err != nil {
		return err
	}
	o, err := s.cfg.Registry.Create(r.Context(), req, obj, opts)
	if err != nil {
		return err
	}
	if info, ok := r.Context().Value(infoKey).(*requestInfo); ok {
		info.audit.Created(o.Name, string(o.UID))
	}
	return s.sendCached(w, http.StatusCreated, rep, sv, o)
}

func (s *Server) serveUpdate(w http.ResponseWriter, r *http.Request, sv served, req registry.Request) error {
	rep, err := sv.negotiate(r)
	if err != nil {
		return err
	}
	opts, validation, err := writeOptions(r, &metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	obj, err := s.decodeBody(w, r, sv, validation)
	if err != nil {
		return err
	}
	change := func(runtime.Object) (runtime.Object, error) { return obj.DeepCopyObject(), nil }
	o, created, err := s.cfg.Registry.Update(r.Context(), req, change, registry.UpdateOptions{
		WriteOptions: opts, AllowCreate: sv.res.AllowCreateOnUpdate && req.Subresource == "",
	})
	if err != nil {
		return err
	}
	return s.sendCached(w, createdCode(created), rep, sv, o)
}

func createdCode(created bool) int {
	if created {
		return http.StatusCreated
	}
	return http.StatusOK
}

func (s *Server) servePatch(w http.ResponseWriter, r *http.Request, sv served, req registry.Request) error {
	rep, err := sv.negotiate(r)
	if err != nil {
		return err
	}
	opts, patch, err := s.patchOptions(w, r)
	if err != nil {
		return err
	}
	o, created, err := s.cfg.Registry.Patch(r.Context(), s.decoder, req, patch, opts)
	if err != nil {
		return err
	}
	return s.sendCached(w, createdCode(created), rep, sv, o)
}

func patchType(r *http.Request) types.PatchType {
	contentType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return types.PatchType(strings.TrimSpace(contentType))
}

func isApply(r *http.Request) bool { return patchType(r) == types.ApplyPatchType }

func (s *Server) patchOptions(w http.ResponseWriter, r *http.Request) (registry.PatchOptions, []byte, error) {
	write, validation, err := writeOptions(r, &metav1.PatchOptions{})
	opts := registry.PatchOptions{WriteOptions: write, Validation: validation}
	if err != nil {
		return opts, nil, err
	}
	opts.Type = patchType(r)
	if opts.Type == types.ApplyPatchType {
		opts.Manager = r.URL.Query().Get("fieldManager")
	}
	opts.Force = boolParam(r.URL.Query(), "force")
	patch, err := readBody(w, r)
	return opts, patch, err
}

// deleteOptions reads them from the query and from the body, which wins.
func (s *Server) deleteOptions(w http.ResponseWriter, r *http.Request) (registry.DeleteOptions, error) {
	opts := registry.DeleteOptions{}
	opts.Warn = warner(r.Context())
	body, err := readBody(w, r)
	if err != nil {
		return opts, err
	}
	if len(body) > 0 {
		media, ok := bodyType(r)
		if !ok {
			return opts, unsupportedMediaType(r.Header.Get("Content-Type"))
		}
		if err := s.decodeDeleteOptions(body, media, &opts.DeleteOptions); err != nil {
			return opts, err
		}
	} else if err := metav1.Convert_url_Values_To_v1_DeleteOptions(ptr(r.URL.Query()), &opts.DeleteOptions, nil); err != nil {
		return opts, apierrors.NewBadRequest("the delete options in the query are not valid: " + err.Error())
	}
	if opts.WriteOptions.DryRun, err = dryRun(opts.DeleteOptions.DryRun); err != nil {
		return opts, err
	}
	opts.Options = &opts.DeleteOptions
	return opts, nil
}

func ptr[T any](v T) *T { return &v }

// decodeDeleteOptions accepts DeleteOptions of any group version, as clients
// send them under the group of the object they delete.
func (s *Server) decodeDeleteOptions(body []byte, media registry.MediaType, into *metav1.DeleteOptions) error {
	if media == registry.JSON {
		if err := json.Unmarshal(body, into); err != nil {
			return apierrors.NewBadRequest("the DeleteOptions in the body cannot be decoded: " + err.Error())
		}
		if into.Kind != "" && into.Kind != "DeleteOptions" {
			return apierrors.NewBadRequest("the body must be DeleteOptions, not a " + into.Kind)
		}
		return nil
	}
	obj, err := s.decoder.DecodeInto(body, media, into)
	if err != nil {
		return apierrors.NewBadRequest("the DeleteOptions in the body cannot be decoded: " + err.Error())
	}
	if got, ok := obj.(*metav1.DeleteOptions); ok && got != into {
		*into = *got
	}
	return nil
}

func (s *Server) serveDelete(w http.ResponseWriter, r *http.Request, sv served, req registry.Request) error {
	rep, err := sv.negotiate(r)
	if err != nil {
		return err
	}
	opts, err := s.deleteOptions(w, r)
	if err != nil {
		return err
	}
	o, gone, err := s.cfg.Registry.Delete(r.Context(), req, opts)
	if err != nil {
		return err
	}
	if gone && !sv.res.ReturnDeleted {
		status := &metav1.Status{Status: metav1.StatusSuccess, Details: &metav1.StatusDetails{
			Name: req.Name, Group: sv.res.Group, Kind: sv.res.Plural, UID: o.UID,
		}}
		sendObject(w, http.StatusOK, rep, statusGVK, status)
		return nil
	}
	return s.sendCached(w, http.StatusOK, rep, sv, o)
}

func (s *Server) serveDeleteCollection(w http.ResponseWriter, r *http.Request, sv served, req registry.Request) error {
	rep, err := sv.negotiate(r)
	if err != nil {
		return err
	}
	list, err := listOptions(r, sv, s.now())
	if err != nil {
		return err
	}
	opts, err := s.deleteOptions(w, r)
	if err != nil {
		return err
	}
	page, err := s.cfg.Registry.DeleteCollection(r.Context(), req, list.ListOptions, opts)
	if err != nil {
		return err
	}
	return s.sendList(w, rep, sv, req, page)
}
