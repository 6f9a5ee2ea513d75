//lint:file-ignore SA1019 ComponentStatus is deprecated for clients; a server serves it all the same.

package apiserver

import (
	"context"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/registry"
	"coracle/pkg/storage/cache"
)

// componentTimeout bounds how long one component is asked for its health.
const componentTimeout = 5 * time.Second

// serveComputed answers for a kind whose objects are made when asked for:
// ComponentStatus.
func (s *Server) serveComputed(w http.ResponseWriter, r *http.Request, sv served, req registry.Request) error {
	rep, err := negotiate(r, true)
	if err != nil {
		return err
	}
	if req.Name == "" {
		return s.listComponents(w, r, sv, req, rep)
	}
	for _, c := range s.cfg.Components {
		if c.Name == req.Name {
			o, err := registry.Transient(sv.res, componentStatus(r.Context(), c))
			if err != nil {
				return err
			}
			return s.sendCached(w, http.StatusOK, rep, sv, o)
		}
	}
	return apierrors.NewNotFound(sv.res.GroupResource(), req.Name)
}

func (s *Server) listComponents(w http.ResponseWriter, r *http.Request, sv served, req registry.Request, rep representation) error {
	opts, err := listOptions(r, sv, s.now())
	if err != nil {
		return err
	}
	match, err := registry.Selects(sv.res, opts.ListOptions)
	if err != nil {
		return err
	}
	page := &cache.List{Remaining: -1}
	for _, c := range s.cfg.Components {
		o, err := registry.Transient(sv.res, componentStatus(r.Context(), c))
		if err != nil {
			return err
		}
		if match == nil || match(o) {
			page.Items = append(page.Items, o)
		}
	}
	return s.sendList(w, rep, sv, req, page)
}

func componentStatus(ctx context.Context, c Check) *corev1.ComponentStatus {
	ctx, cancel := context.WithTimeout(ctx, componentTimeout)
	defer cancel()
	healthy := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"}
	if c.Check != nil {
		if err := c.Check(ctx); err != nil {
			healthy.Status, healthy.Message, healthy.Error = corev1.ConditionFalse, "", err.Error()
		}
	}
	return &corev1.ComponentStatus{ObjectMeta: metav1.ObjectMeta{Name: c.Name}, Conditions: []corev1.ComponentCondition{healthy}}
}
