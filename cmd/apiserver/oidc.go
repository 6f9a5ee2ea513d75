package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"coracle/pkg/auth/oidc"
	"coracle/pkg/controlplane"
)

// oidcFlags are the flags of OpenID Connect, as given.
type oidcFlags struct {
	config         oidc.Config
	clientID       string
	caFile         string
	usernamePrefix string
	file           string // --authentication-config
}

func (o *oidcFlags) add(f *pflag.FlagSet) {
	c := &o.config
	f.StringVar(&c.IssuerURL, "oidc-issuer-url", "", "https URL of the OpenID Connect issuer whose tokens are believed")
	f.StringVar(&o.clientID, "oidc-client-id", "", "client that the tokens of --oidc-issuer-url must be for")
	f.StringVar(&o.caFile, "oidc-ca-file", "", "authority of the issuer's certificate; empty means the system's")
	f.StringVar(&c.Username.Claim, "oidc-username-claim", "sub", "claim that names the user")
	f.StringVar(&o.usernamePrefix, "oidc-username-prefix", "", "what is put before user names; empty means the issuer's URL and # unless the claim is email, - means nothing")
	f.StringVar(&c.Groups.Claim, "oidc-groups-claim", "", "claim that names the user's groups")
	f.StringVar(&c.Groups.Prefix, "oidc-groups-prefix", "", "what is put before the names of groups")
	f.StringSliceVar(&c.Algorithms, "oidc-signing-algs", []string{"RS256"}, "algorithms that tokens may be signed with")
	f.StringToStringVar(&c.Required, "oidc-required-claim", nil, "claim=value that tokens must have; may be repeated")
	f.StringVar(&o.file, "authentication-config", "", "file with an AuthenticationConfiguration of apiserver.config.k8s.io/v1, in place of the --oidc flags; a changed one is put into force with no restart")
}

// apply sets whose tokens are believed.
func (o *oidcFlags) apply(s *controlplane.ServeOptions) error {
	if o.file != "" {
		if o.config.IssuerURL != "" || o.clientID != "" {
			return errors.New("--authentication-config and the --oidc flags exclude each other: put the issuer into the file")
		}
		s.AuthenticationFile = o.file
		return nil
	}
	if o.config.IssuerURL == "" && o.clientID == "" {
		return nil
	}
	if o.config.IssuerURL == "" || o.clientID == "" {
		return errors.New("--oidc-issuer-url and --oidc-client-id belong together: give both")
	}
	issuer := o.config
	issuer.Audiences = []string{o.clientID}
	switch {
	case o.usernamePrefix == "-":
	case o.usernamePrefix == "" && issuer.Username.Claim != "email":
		issuer.Username.Prefix = issuer.IssuerURL + "#"
	default:
		issuer.Username.Prefix = o.usernamePrefix
	}
	if o.caFile != "" {
		var err error
		if issuer.CA, err = os.ReadFile(o.caFile); err != nil {
			return fmt.Errorf("read --oidc-ca-file: %w", err)
		}
	}
	s.OIDC = []oidc.Config{issuer}
	return nil
}
