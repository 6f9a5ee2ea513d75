package apiserver

import (
	"context"
	"errors"
	"net/http"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"coracle/pkg/registry"
	"coracle/pkg/storage/cache"
)

var (
	statusGVK = metav1.SchemeGroupVersion.WithKind("Status")
	scaleGVK  = autoscalingv1.SchemeGroupVersion.WithKind("Scale")
)

// Handler serves a subresource that is more than a part of its object. It
// writes the whole answer. rest is the path behind the subresource.
type Handler func(w http.ResponseWriter, r *http.Request, req registry.Request, rest string)

// serveSubresource handles /status, /scale and those that write their parent
// generically; all others have a Handler of their own.
func (s *Server) serveSubresource(w http.ResponseWriter, r *http.Request, sv served, req registry.Request, info *requestInfo) error {
	sub, ok := sv.res.Subresource(info.subresource)
	if !ok || info.name == "" {
		return notFoundPath()
	}
	if h, ok := s.handlers[sv.res.GroupResource().String()+"/"+sub.Name]; ok {
		h(w, r, req, info.rest)
		return nil
	}
	if sub.Name != "status" && sub.Name != "scale" && sub.Prepare == nil {
		// It needs a way to nodes or a key that this server was not given.
		return apierrors.NewServiceUnavailable(sv.res.Plural + "/" + sub.Name + " is not served by this API server")
	}
	if info.rest != "" {
		return notFoundPath()
	}
	if sub.Name == "scale" && sv.res.Scale != nil {
		return s.serveScale(w, r, req, info.verb)
	}
	switch info.verb {
	case "get":
		return s.serveGet(w, r, sv, req)
	case "update":
		return s.serveUpdate(w, r, sv, req)
	case "patch":
		return s.servePatch(w, r, sv, req)
	default:
		return methodNotSupported(sv.res.GroupResource(), info.verb)
	}
}

func (s *Server) serveScale(w http.ResponseWriter, r *http.Request, req registry.Request, verb string) error {
	rep, err := negotiate(r, false)
	if err != nil {
		return err
	}
	var change func(runtime.Object) (runtime.Object, error)
	opts, validation, err := writeOptions(r, &metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	switch verb {
	case "get":
		return s.sendScale(w, rep, req, r.Context())
	case "update":
		change, err = s.scaleUpdate(w, r, validation)
	case "patch":
		if isApply(r) {
			return s.applyScale(w, r, rep, req)
		}
		change, err = s.scalePatch(w, r)
	default:
		err = methodNotSupported(req.Resource.GroupResource(), verb)
	}
	if err != nil {
		return err
	}
	o, err := s.cfg.Registry.SetScale(r.Context(), req, change, registry.UpdateOptions{WriteOptions: opts})
	if err != nil {
		return err
	}
	return writeScale(w, rep, req, o)
}

// writeScale answers with the Scale that an object shows.
func writeScale(w http.ResponseWriter, rep representation, req registry.Request, o *cache.Object) error {
	obj, err := registry.Shared(req.Resource, o)
	if err != nil {
		return err
	}
	scale := req.Resource.Scale(obj)
	if scale == nil { // a custom resource may lack the field that it is read from
		return apierrors.NewInternalError(errors.New("the spec replicas field of the scale subresource does not exist in the object"))
	}
	sendObject(w, http.StatusOK, rep, scaleGVK, scale)
	return nil
}

// applyScale is server-side apply of a Scale: its manager comes to own the
// number of replicas of the object itself.
func (s *Server) applyScale(w http.ResponseWriter, r *http.Request, rep representation, req registry.Request) error {
	opts, patch, err := s.patchOptions(w, r)
	if err == nil {
		patch, err = registry.ParentOfScale(s.plain, req, patch, opts)
	}
	if err != nil {
		return err
	}
	o, _, err := s.cfg.Registry.Patch(r.Context(), s.decoder, req, patch, opts)
	if err != nil {
		return err
	}
	return writeScale(w, rep, req, o)
}

func (s *Server) sendScale(w http.ResponseWriter, rep representation, req registry.Request, ctx context.Context) error {
	o, err := s.cfg.Registry.Get(ctx, req, "")
	if err != nil {
		return err
	}
	return writeScale(w, rep, req, o)
}

func (s *Server) scaleUpdate(w http.ResponseWriter, r *http.Request, validation registry.Validation) (func(runtime.Object) (runtime.Object, error), error) {
	body, media, err := readTyped(w, r)
	if err != nil {
		return nil, err
	}
	obj, err := s.plain.Decode(body, media, scaleGVK, validation, warner(r.Context()))
	if err != nil {
		return nil, err
	}
	return func(runtime.Object) (runtime.Object, error) { return obj, nil }, nil
}

func (s *Server) scalePatch(w http.ResponseWriter, r *http.Request) (func(runtime.Object) (runtime.Object, error), error) {
	opts, patch, err := s.patchOptions(w, r)
	if err != nil {
		return nil, err
	}
	return func(scale runtime.Object) (runtime.Object, error) {
		return registry.PatchObject(s.plain, scaleGVK, scale, patch, opts)
	}, nil
}

// decodeAs reads a request body that must be of the given kind.
func decodeAs[T runtime.Object](s *Server, w http.ResponseWriter, r *http.Request, into T, validation registry.Validation) (T, error) {
	var none T
	body, media, err := readTyped(w, r)
	if err != nil {
		return none, err
	}
	gvks, _, err := s.plain.Scheme().ObjectKinds(into)
	if err != nil {
		return none, apierrors.NewInternalError(err)
	}
	obj, err := s.plain.Decode(body, media, gvks[0], validation, warner(r.Context()))
	if err != nil {
		return none, err
	}
	return obj.(T), nil
}

// checkName refuses a body whose name or namespace is not the URL's, and
// fills them in where the body left them out.
func checkName(req registry.Request, obj runtime.Object) error {
	acc, err := meta.Accessor(obj)
	if err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if acc.GetName() == "" {
		acc.SetName(req.Name)
	}
	if acc.GetNamespace() == "" {
		acc.SetNamespace(req.Namespace)
	}
	if acc.GetName() != req.Name {
		return apierrors.NewBadRequest("the name in the body (" + acc.GetName() + ") does not match the name on the URL (" + req.Name + ")")
	}
	if acc.GetNamespace() != req.Namespace {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}
