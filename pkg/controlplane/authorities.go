package controlplane

import (
	"context"
	"errors"
	"time"

	"coracle/pkg/auth"
	"coracle/pkg/pki"
)

// clusterAuthority is the common name of a cluster's first authority.
const clusterAuthority = "coracle"

// followAuthorities has the authorities that are in the folder in force, while they
// are replaced (pki.Rotate) and after: in whom the server believes, whom it tells
// others to believe in, and who signs.
func (o *ServeOptions) followAuthorities(files *Files) {
	named := pki.AuthorityFiles(files.PKI, pki.ClusterCA)
	if files.frontCA != nil {
		named = append(named, pki.AuthorityFiles(files.PKI, pki.FrontProxyCA)...)
	}
	files.reloads = append(files.reloads, &reload{what: "the cluster's authorities", files: named, mayLack: true,
		apply: func(ctx context.Context, cp *ControlPlane) error { return o.setAuthorities(ctx, cp, files) }})
}

// agingEvery is the time between two looks at how long the authorities last.
const agingEvery = 24 * time.Hour

// watchAuthorities says in the log each day that an authority ends within a year.
func (o *ServeOptions) watchAuthorities(ctx context.Context, files *Files) error {
	tick := o.Clock.NewTicker(agingEvery)
	defer tick.Stop()
	for {
		for _, ca := range []*pki.LiveCA{files.CA, files.frontCA} {
			if ca == nil {
				continue
			}
			if cert := ca.Authorities().Signer.Cert; pki.AuthorityAging(cert, o.Clock.Now()) {
				o.Log.Warn("an authority of the cluster ends soon: replace it with \"ctl cluster rotate-ca\"", "authority", cert.Subject.CommonName, "until", cert.NotAfter)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C():
		}
	}
}

// setAuthorities first spreads in whom to believe; what is issued anew comes last,
// with a certificate by which those who have not heard yet know it.
func (o *ServeOptions) setAuthorities(ctx context.Context, cp *ControlPlane, files *Files) error {
	id := cp.cfg.Identity
	a, err := pki.LoadAuthorities(files.PKI, pki.ClusterCA, clusterAuthority, o.Clock.Now(), o.Rand)
	if err != nil {
		return err
	}
	if files.frontCA != nil {
		front, err := pki.LoadAuthorities(files.PKI, pki.FrontProxyCA, frontProxyAuthority, o.Clock.Now(), o.Rand)
		if err != nil {
			return err
		}
		files.frontCA.Set(front)
		id.FrontProxy.CA.Set(front.Bundle())
	}
	files.CA.Set(a)
	bundle, err := o.clientAuthorities(files)
	if err != nil {
		return err
	}
	if err := cp.setClientCA(ctx, bundle); err != nil {
		return err
	}
	id.RootCA.Set(a.Bundle())
	info, err := cp.clusterInfo()
	if err == nil {
		err = cp.ensureAll(auth.WithUser(ctx, self()), info)
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, k := range files.keepers {
		errs = append(errs, k.Refresh())
	}
	return errors.Join(errs...)
}
