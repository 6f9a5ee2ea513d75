// Package serviceaccounttoken fills Secrets of type
// kubernetes.io/service-account-token with a token that does not expire, and
// removes them with their service account: such a token ends with its Secret.
//
// The controller reads these Secrets alone, under its own identity, and not
// through the process's shared informers, which would hold all Secrets of the
// cluster.
package serviceaccounttoken

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"

	"coracle/pkg/pki"
	"coracle/pkg/reconcile"
)

// Sign makes the token of an account that is kept in the named Secret of its
// namespace.
type Sign func(account *corev1.ServiceAccount, secret string) (string, error)

// lookAgain is when a Secret is looked at again whose account the cache did not
// have: an account that goes before it is seen tells nobody.
const lookAgain = 5 * time.Second

// byAccount indexes Secrets by namespace and name of the account they name.
const byAccount = "service-account"

// Controller reconciles token Secrets. Make it with New.
type Controller struct {
	env      reconcile.Env
	bundle   *pki.Bundle
	sign     Sign
	secrets  cache.SharedIndexInformer
	accounts cache.SharedIndexInformer
	loop     *reconcile.Loop

	mu sync.Mutex
	// deleted are Secrets of whose end the account has not been told; guarded
	// by mu, and each has a key in the loop's queue.
	deleted map[reconcile.Key]*corev1.Secret
}

// New registers the controller's informers. bundle is what pods verify the API
// server with.
func New(env reconcile.Env, bundle *pki.Bundle, sign Sign) *Controller {
	env = env.Defaulted()
	c := &Controller{
		env: env, bundle: bundle, sign: sign,
		secrets:  tokenSecrets(env),
		accounts: env.Informers.Core().V1().ServiceAccounts().Informer(),
		deleted:  map[reconcile.Key]*corev1.Secret{},
	}
	c.loop = env.Loop("serviceaccount-token", c.reconcile)
	c.loop.Handle(c.secrets, cache.ResourceEventHandlerFuncs{DeleteFunc: c.remember})
	reconcile.Watch(c.loop, c.secrets, reconcile.Self[*corev1.Secret])
	reconcile.Watch(c.loop, c.accounts, func(a *corev1.ServiceAccount) []reconcile.Key {
		var keys []reconcile.Key
		for _, s := range reconcile.Indexed[*corev1.Secret](c.secrets, byAccount, a.Namespace+"/"+a.Name) {
			keys = append(keys, reconcile.KeyOf(s))
		}
		return keys
	})
	bundle.Follow(func() {
		for _, s := range c.secrets.GetStore().List() {
			if s, ok := s.(*corev1.Secret); ok {
				c.loop.Add(reconcile.KeyOf(s))
			}
		}
	})
	return c
}

// tokenSecrets informs of the Secrets of this type.
func tokenSecrets(env reconcile.Env) cache.SharedIndexInformer {
	return coreinformers.NewFilteredSecretInformer(env.Client, metav1.NamespaceAll, 0,
		cache.Indexers{byAccount: func(obj any) ([]string, error) {
			s, ok := obj.(*corev1.Secret)
			if !ok {
				return nil, nil
			}
			return []string{s.Namespace + "/" + s.Annotations[corev1.ServiceAccountNameKey]}, nil
		}},
		func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("type", string(corev1.SecretTypeServiceAccountToken)).String()
			reconcile.ConsistentLists(o)
		})
}

// Run blocks until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	reading, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.secrets.RunWithContext(reading)
	}()
	err := c.loop.Run(ctx)
	stop()
	<-done
	return err
}

// remember notes a Secret that has gone, of which nothing else tells any more.
func (c *Controller) remember(obj any) {
	if lost, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = lost.Obj
	}
	s, ok := obj.(*corev1.Secret)
	if !ok {
		return
	}
	c.mu.Lock()
	c.deleted[reconcile.KeyOf(s)] = s
	c.mu.Unlock()
	c.loop.Add(reconcile.KeyOf(s))
}

func (c *Controller) wasDeleted(key reconcile.Key) *corev1.Secret {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.deleted[key]
}

// forget ends what remember began, unless another Secret has gone since.
func (c *Controller) forget(s *corev1.Secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if key := reconcile.KeyOf(s); c.deleted[key] == s {
		delete(c.deleted, key)
	}
}

func (c *Controller) reconcile(ctx context.Context, req *reconcile.Request) (reconcile.Result, error) {
	gone := c.wasDeleted(req.Key)
	s := reconcile.Cached[*corev1.Secret](c.secrets, req.Key)
	var result reconcile.Result
	if s != nil {
		var err error
		if result, err = c.keep(ctx, req, s); err != nil {
			return reconcile.Result{}, err
		}
	} else if gone != nil {
		if err := c.dereference(ctx, req, gone); err != nil {
			return reconcile.Result{}, err
		}
	}
	if gone != nil {
		c.forget(gone)
	}
	return result, nil
}

// keep fills a Secret whose account is there, and removes one whose is not.
func (c *Controller) keep(ctx context.Context, req *reconcile.Request, s *corev1.Secret) (reconcile.Result, error) {
	if s.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	account, cached, err := c.account(ctx, s)
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("look for the service account of the secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	if account == nil {
		return reconcile.Result{}, c.remove(ctx, s)
	}
	if err := c.complete(ctx, req, s, account); err != nil || cached {
		return reconcile.Result{}, err
	}
	return reconcile.Result{RequeueAfter: lookAgain}, nil
}

// remove deletes a Secret whose account is gone; whoever has given it another
// meanwhile keeps it.
func (c *Controller) remove(ctx context.Context, s *corev1.Secret) error {
	err := c.env.Client.CoreV1().Secrets(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &s.UID, ResourceVersion: &s.ResourceVersion},
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("remove the secret %s/%s, whose service account is gone: %w", s.Namespace, s.Name, err)
	}
	return nil
}

// complete writes what a Secret lacks. Nothing can be written to an immutable
// one, and a token of an account that is being deleted would be refused.
func (c *Controller) complete(ctx context.Context, req *reconcile.Request, s *corev1.Secret, account *corev1.ServiceAccount) error {
	if complete(s, c.bundle.Bytes()) || (s.Immutable != nil && *s.Immutable) || account.DeletionTimestamp != nil {
		return nil
	}
	want, err := fill(s, account, c.bundle.Bytes(), c.sign)
	if err != nil {
		return fmt.Errorf("make the token of the secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	got, err := c.env.Client.CoreV1().Secrets(s.Namespace).Update(ctx, want, metav1.UpdateOptions{})
	switch {
	case err == nil:
		req.Wrote(c.secrets, got)
	case apierrors.IsNotFound(err):
	default:
		return fmt.Errorf("fill the secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	return nil
}

// account is that of a Secret, nil when there is none. What the cache does not
// have is asked for: a Secret may be known before its account is.
func (c *Controller) account(ctx context.Context, s *corev1.Secret) (a *corev1.ServiceAccount, cached bool, err error) {
	name := s.Annotations[corev1.ServiceAccountNameKey]
	if name == "" {
		return nil, false, nil
	}
	a = reconcile.Cached[*corev1.ServiceAccount](c.accounts, reconcile.Key{Namespace: s.Namespace, Name: name})
	if a != nil && names(s, a) {
		return a, true, nil
	}
	a, err = c.env.Client.CoreV1().ServiceAccounts(s.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || (err == nil && !names(s, a)) {
		return nil, false, nil
	}
	return a, false, err
}

// dereference takes a Secret that has gone from the list of its account.
func (c *Controller) dereference(ctx context.Context, req *reconcile.Request, s *corev1.Secret) error {
	key := reconcile.Key{Namespace: s.Namespace, Name: s.Annotations[corev1.ServiceAccountNameKey]}
	a := reconcile.Cached[*corev1.ServiceAccount](c.accounts, key)
	if a == nil || !names(s, a) {
		return nil
	}
	want := without(a, s.Name)
	if want == nil {
		return nil
	}
	got, err := c.env.Client.CoreV1().ServiceAccounts(s.Namespace).Update(ctx, want, metav1.UpdateOptions{})
	switch {
	case err == nil:
		req.Wrote(c.accounts, got)
	case apierrors.IsNotFound(err):
	default:
		return fmt.Errorf("take the secret %s from the service account %s/%s: %w", s.Name, a.Namespace, a.Name, err)
	}
	return nil
}
