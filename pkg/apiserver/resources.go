package apiserver

import (
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"coracle/pkg/registry"
	"coracle/pkg/storage/cache"
)

// serveResource handles a request for objects. An error is one that nothing was
// answered to yet.
func (s *Server) serveResource(w http.ResponseWriter, r *http.Request, info *requestInfo) error {
	sv, ok := s.lookup(info)
	if !ok {
		return notFoundPath()
	}
	sv.res = registry.ForRequest(r.Context(), sv.res)
	if text := sv.res.Deprecated; text != "" && sv.view == nil {
		warner(r.Context())(text)
		s.metrics.deprecated.WithLabelValues(sv.res.Group, sv.res.Version, sv.res.Plural, "", "").Set(1)
	}
	req := registry.Request{Resource: sv.res, View: sv.view, Subresource: info.subresource, Namespace: info.namespace, Name: info.name}
	if info.subresource != "" {
		return s.serveSubresource(w, r, sv, req, info)
	}
	misplaced := r.Method == http.MethodPost && info.name != "" || info.name == "" && (info.verb == "update" || info.verb == "patch")
	if !sv.res.HasVerb(info.verb) || misplaced {
		return methodNotSupported(sv.res.GroupResource(), info.verb)
	}
	if sv.res.Computed {
		return s.serveComputed(w, r, sv, req)
	}
	if !sv.res.Stored() {
		return s.serveReview(w, r, sv, req)
	}
	switch info.verb {
	case "get":
		return s.serveGet(w, r, sv, req)
	case "list":
		return s.serveList(w, r, sv, req)
	case "watch":
		return s.serveWatch(w, r, sv, req)
	case "create":
		return s.serveCreate(w, r, sv, req)
	case "update":
		return s.serveUpdate(w, r, sv, req)
	case "patch":
		return s.servePatch(w, r, sv, req)
	case "delete":
		return s.serveDelete(w, r, sv, req)
	case "deletecollection":
		return s.serveDeleteCollection(w, r, sv, req)
	default:
		return methodNotSupported(sv.res.GroupResource(), info.verb)
	}
}

// lookup finds the resource of a request, and refuses a scope that the
// resource does not have (CVE-2019-11247).
func (s *Server) lookup(info *requestInfo) (served, bool) {
	res, ok := s.cfg.Registry.Table().ByGVR(info.gvr)
	if !ok {
		return served{}, false
	}
	sv := served{res: res, plan: s.cfg.Registry.Plan(res), partial: s.cfg.Registry.MetadataPlan()}
	if info.gvr.Group != res.Group || info.gvr.Version != res.Version {
		for i := range res.Views {
			if v := &res.Views[i]; v.Group == info.gvr.Group && v.Version == info.gvr.Version {
				sv.view = v
			}
		}
	}
	switch {
	case !res.Namespaced && info.within:
		return served{}, false
	case res.Namespaced && info.namespace == "" && (info.name != "" || info.verb == "create"):
		return served{}, false
	}
	return sv, true
}

func (s *Server) serveGet(w http.ResponseWriter, r *http.Request, sv served, req registry.Request) error {
	rep, err := sv.negotiate(r)
	if err != nil {
		return err
	}
	o, err := s.cfg.Registry.Get(r.Context(), req, r.URL.Query().Get("resourceVersion"))
	if err != nil {
		return err
	}
	return s.sendCached(w, http.StatusOK, rep, sv, o)
}

func (s *Server) sendCached(w http.ResponseWriter, code int, rep representation, sv served, o *cache.Object) error {
	buf := s.buffers.small()
	defer s.buffers.putSmall(buf)
	body, err := sv.appendOne((*buf)[:0], o, rep, s.now(), true)
	*buf = body
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if rep.media == registry.JSON {
		*buf = append(body, '\n')
	}
	send(w, code, rep, *buf)
	return nil
}

func (s *Server) serveList(w http.ResponseWriter, r *http.Request, sv served, req registry.Request) error {
	rep, err := sv.negotiate(r)
	if err != nil {
		return err
	}
	opts, err := listOptions(r, sv, s.now())
	if err != nil {
		return err
	}
	page, err := s.cfg.Registry.List(r.Context(), req, opts.ListOptions)
	if err != nil {
		return err
	}
	return s.sendList(w, rep, sv, req, page)
}

func (s *Server) sendList(w http.ResponseWriter, rep representation, sv served, req registry.Request, page *cache.List) error {
	form, err := sv.listForm(registry.ContinueToken(req, page), page, rep, s.now())
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	registry.Expect(sv.res, page.Items)
	s.stream(w, rep, form, page.Items)
	return nil
}
