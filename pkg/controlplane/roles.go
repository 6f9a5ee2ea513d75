package controlplane

import (
	"context"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"coracle/pkg/auth"
	"coracle/pkg/controllers"
	"coracle/pkg/controllers/csr"
	"coracle/pkg/pki"
	"coracle/pkg/reconcile"
	"coracle/pkg/scheduler"
)

// managerUser is the identity under which the shared informers read.
func managerUser() *auth.User {
	return &auth.User{Name: auth.UserManager, Groups: []string{auth.GroupAuthenticated}}
}

func schedulerUser() *auth.User {
	return &auth.User{Name: auth.UserScheduler, Groups: []string{auth.GroupAuthenticated}}
}

// controllerUser is the service account of one controller.
func controllerUser(name string) *auth.User {
	return &auth.User{
		Name:   auth.ServiceAccountName("kube-system", name),
		Groups: []string{auth.GroupServiceAccounts, auth.GroupServiceAccounts + ":kube-system", auth.GroupAuthenticated},
	}
}

func (cp *ControlPlane) client(user *auth.User) kubernetes.Interface {
	return kubernetes.NewForConfigOrDie(cp.roleConfig(user))
}

// roleConfig is the client configuration of a part of this process. Warnings
// are for people: a controller of a deprecated kind knows that it is one.
func (cp *ControlPlane) roleConfig(user *auth.User) *rest.Config {
	config := cp.RESTConfig(user)
	config.WarningHandlerWithContext = rest.NoWarnings{}
	config.Wrap(cp.metrics.client)
	return config
}

// runRoles runs the scheduler and the controllers over one set of informers
// until ctx ends.
func (cp *ControlPlane) runRoles(ctx context.Context) error {
	factory := reconcile.NewInformers(cp.client(managerUser()))
	group, err := cp.controllers(factory)
	if err != nil {
		return err
	}
	sched, err := scheduler.New(scheduler.Config{
		Client: cp.client(schedulerUser()), Informers: factory, Profiles: cp.cfg.Scheduler, Placements: cp.placements,
		Clock: cp.cfg.Clock, Log: cp.cfg.Log,
	})
	if err != nil {
		return err
	}
	reading, stop := context.WithCancel(ctx)
	defer factory.Shutdown()
	defer stop()
	factory.StartWithContext(reading)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return group.Run(ctx) })
	g.Go(func() error { return sched.Run(ctx) })
	return g.Wait()
}

func (cp *ControlPlane) controllers(factory informers.SharedInformerFactory) (*controllers.Group, error) {
	return controllers.New(controllers.Config{
		ClientFor: func(name string) kubernetes.Interface { return cp.client(controllerUser(name)) },
		MetadataFor: func(name string) metadata.Interface {
			return metadata.NewForConfigOrDie(cp.roleConfig(controllerUser(name)))
		},
		Informers:       factory,
		CABundle:        cp.rootCA(),
		ClusterCIDR:     cp.cfg.ClusterCIDR,
		LoadBalancers:   cp.cfg.LoadBalancers,
		NodeLifecycle:   cp.cfg.NodeLifecycle,
		Signer:          cp.signer(),
		TokenOf:         cp.tokenOf(),
		SecretsOf:       secretsOf,
		BootstrapTokens: cp.cfg.BootstrapTokens,
		Rand:            cp.cfg.Rand,
		Clock:           cp.cfg.Clock,
		Log:             cp.cfg.Log,
	})
}

// signer signs approved certificate requests, where the authority is here.
func (cp *ControlPlane) signer() csr.Signer {
	if id := cp.cfg.Identity; id != nil && id.CA != nil {
		return id.CA
	}
	return nil
}

// rootCA is what pods verify the API server with. A control plane that is only
// reached in memory has none to give, and says so in the published bundle.
func (cp *ControlPlane) rootCA() *pki.Bundle {
	if id := cp.cfg.Identity; id != nil && id.RootCA != nil {
		return id.RootCA
	}
	return pki.NewBundle([]byte("# this API server has no certificate\n"))
}
