// Package csr deals with certificate signing requests: it approves those of
// nodes for their client certificates when their sender may have them, and those
// for their serving certificates when the Node object has all names and addresses
// and nobody else does, signs approved ones for the cluster's signers, and removes
// old ones. What it does not approve is left to a human.
package csr

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/auth/bootstraptoken"
	"coracle/pkg/pki"
	"coracle/pkg/reconcile"
)

// Signer signs requests that were approved.
type Signer interface {
	// SignCSR returns the certificate as PEM. lifetime zero means the
	// signer's default. The error is pki.ErrUnknownSigner for a signer that is
	// not its own.
	SignCSR(signer string, csr *x509.CertificateRequest, usages []string, lifetime time.Duration, now time.Time, rand io.Reader) ([]byte, error)
}

var _ Signer = (*pki.CA)(nil)

// Config says who signs.
type Config struct {
	// Signer signs for all of the cluster's own signers; nil signs nothing.
	Signer Signer
	// Rand is the source of serial numbers; nil means crypto/rand.
	Rand io.Reader
}

// Controller reconciles signing requests. Make it with New.
type Controller struct {
	env      reconcile.Env
	cfg      Config
	requests cache.SharedIndexInformer
	nodes    corelisters.NodeLister
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
	loop     *reconcile.Loop
}

// New registers the controller's informers.
func New(env reconcile.Env, cfg Config) *Controller {
	env = env.Defaulted()
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	core, slices := env.Informers.Core().V1(), env.Informers.Discovery().V1().EndpointSlices()
	c := &Controller{
		env: env, cfg: cfg, requests: env.Informers.Certificates().V1().CertificateSigningRequests().Informer(),
		nodes: core.Nodes().Lister(), services: core.Services().Lister(), slices: slices.Lister(),
	}
	c.loop = env.Loop("csr", c.reconcile)
	// Requests are looked at again by themselves: a change of a node, a Service or
	// a slice is no reason to. But the first look is at what all of them are.
	for _, i := range []cache.SharedIndexInformer{core.Nodes().Informer(), core.Services().Informer(), slices.Informer()} {
		c.loop.Handle(i, cache.ResourceEventHandlerFuncs{})
	}
	reconcile.Watch(c.loop, c.requests, reconcile.Self[*certificatesv1.CertificateSigningRequest])
	return c
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error { return c.loop.Run(ctx) }

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	r := reconcile.Cached[*certificatesv1.CertificateSigningRequest](c.requests, req.Key)
	if r == nil || r.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	now := c.env.Clock.Now()
	what, wait := next(r, now)
	var err error
	switch what {
	case approve:
		err = c.approve(ctx, req, r)
	case sign:
		err = c.sign(ctx, req, r, now)
	case remove:
		err = c.env.Client.CertificatesV1().CertificateSigningRequests().Delete(ctx, r.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &r.UID, ResourceVersion: &r.ResourceVersion},
		})
		if err == nil {
			req.Deleted(c.requests, r)
		}
	case rest:
	}
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return reconcile.Result{RequeueAfter: wait}, err
}

// approve approves r if its sender may have what it asks for. Anything else is
// left to a human.
func (c *Controller) approve(ctx context.Context, req *reconcile.Request, r *certificatesv1.CertificateSigningRequest) error {
	csr, err := parse(r)
	if err != nil {
		return nil // not a node's request: nobody approves it by rule
	}
	message, err := c.reason(ctx, r, csr)
	if err != nil || message == "" {
		return err
	}
	now := metav1.Time{Time: c.env.Clock.Now()}
	out := r.DeepCopy()
	out.Status.Conditions = append(out.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved",
		Message: message, LastUpdateTime: now, LastTransitionTime: now,
	})
	got, err := c.env.Client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, r.Name, out, metav1.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("approve: %w", err)
	}
	req.Wrote(c.requests, got)
	return nil
}

// reason is why r is approved, "" when it is not.
func (c *Controller) reason(ctx context.Context, r *certificatesv1.CertificateSigningRequest, csr *x509.CertificateRequest) (string, error) {
	if r.Spec.SignerName == pki.SignerKubeletServing {
		facts, err := c.facts()
		if err != nil {
			return "", err
		}
		if why := facts.refuse(r, csr); why != "" {
			c.env.Log.Info("a node's serving certificate is not approved", "request", r.Name, "user", r.Spec.Username, "reason", why)
			return "", nil
		}
		return servingMessage, nil
	}
	if why, err := c.refuseJoin(r, csr); err != nil || why != "" {
		if why != "" {
			c.env.Log.Info("a node's first certificate is not approved", "request", r.Name, "user", r.Spec.Username, "reason", why)
		}
		return "", err
	}
	for _, p := range permissions(r, csr) {
		if allowed, err := c.allowed(ctx, r, p.subresource); err != nil || allowed {
			return p.message, err
		}
	}
	return "", nil
}

// refuseJoin says why a machine that shows a bootstrap token does not become the
// node that it asks to be, or "".
func (c *Controller) refuseJoin(r *certificatesv1.CertificateSigningRequest, csr *x509.CertificateRequest) (string, error) {
	if !strings.HasPrefix(r.Spec.Username, bootstraptoken.UserPrefix) {
		return "", nil
	}
	node, err := c.nodes.Get(strings.TrimPrefix(csr.Subject.CommonName, nodeUser))
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return posing(node), nil
}

// facts are read from the caches.
func (c *Controller) facts() (facts, error) {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return facts{}, err
	}
	services, err := c.services.List(labels.Everything())
	if err != nil {
		return facts{}, err
	}
	api, err := c.slices.EndpointSlices(metav1.NamespaceDefault).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: "kubernetes"}))
	return facts{nodes, services, api}, err
}

func (c *Controller) allowed(ctx context.Context, r *certificatesv1.CertificateSigningRequest, subresource string) (bool, error) {
	extra := make(map[string]authorizationv1.ExtraValue, len(r.Spec.Extra))
	for k, v := range r.Spec.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	got, err := c.env.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: r.Spec.Username, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Group: certificatesv1.GroupName, Resource: "certificatesigningrequests", Subresource: subresource, Verb: "create", Version: "*",
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("ask whether %s may have a node's certificate: %w", r.Spec.Username, err)
	}
	return got.Status.Allowed, nil
}

// sign issues r's certificate, or records why it cannot be.
func (c *Controller) sign(ctx context.Context, req *reconcile.Request, r *certificatesv1.CertificateSigningRequest, now time.Time) error {
	if c.cfg.Signer == nil || !signed(r.Spec.SignerName) {
		return nil
	}
	out := r.DeepCopy()
	csr, err := parse(r)
	if errors.Is(err, pki.ErrUnknownSigner) {
		return nil // somebody else's
	}
	if err == nil {
		var lifetime time.Duration
		if s := r.Spec.ExpirationSeconds; s != nil {
			lifetime = time.Duration(*s) * time.Second
		}
		out.Status.Certificate, err = c.cfg.Signer.SignCSR(r.Spec.SignerName, csr, usages(r), lifetime, now, c.cfg.Rand)
		if err != nil {
			return fmt.Errorf("sign: %w", err) // the authority's fault, not the request's
		}
	} else {
		f := failure(err)
		f.LastUpdateTime, f.LastTransitionTime = metav1.Time{Time: now}, metav1.Time{Time: now}
		out.Status.Conditions = append(out.Status.Conditions, f)
	}
	got, err := c.env.Client.CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, out, metav1.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	req.Wrote(c.requests, got)
	return nil
}
