package oidc

import (
	"errors"
	"fmt"

	"sigs.k8s.io/yaml"
)

// maxFile bounds a configuration file.
const maxFile = 1 << 20

// File is what an AuthenticationConfiguration of apiserver.config.k8s.io says.
type File struct {
	Issuers []Config
	// Anonymous says on which paths requests without credentials are let through;
	// nil leaves that as it is.
	Anonymous func(path string) bool
}

// The form of the file, as upstream documents it.
type fileForm struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	JWT        []jwtForm  `json:"jwt"`
	Anonymous  *anonymous `json:"anonymous"`
}

type anonymous struct {
	Enabled    bool `json:"enabled"`
	Conditions []struct {
		Path string `json:"path"`
	} `json:"conditions"`
}

type jwtForm struct {
	Issuer struct {
		URL                  string   `json:"url"`
		DiscoveryURL         string   `json:"discoveryURL"`
		CertificateAuthority string   `json:"certificateAuthority"`
		Audiences            []string `json:"audiences"`
		AudienceMatchPolicy  string   `json:"audienceMatchPolicy"`
		EgressSelectorType   string   `json:"egressSelectorType"`
	} `json:"issuer"`
	ClaimValidationRules []struct {
		Claim         string `json:"claim"`
		RequiredValue string `json:"requiredValue"`
		Expression    string `json:"expression"`
		Message       string `json:"message"`
	} `json:"claimValidationRules"`
	ClaimMappings struct {
		Username mappingForm `json:"username"`
		Groups   mappingForm `json:"groups"`
		UID      struct {
			Claim      string `json:"claim"`
			Expression string `json:"expression"`
		} `json:"uid"`
		Extra []struct {
			Key             string `json:"key"`
			ValueExpression string `json:"valueExpression"`
		} `json:"extra"`
	} `json:"claimMappings"`
	UserValidationRules []struct {
		Expression string `json:"expression"`
		Message    string `json:"message"`
	} `json:"userValidationRules"`
}

type mappingForm struct {
	Claim      string  `json:"claim"`
	Prefix     *string `json:"prefix"`
	Expression string  `json:"expression"`
}

// ParseFile reads an AuthenticationConfiguration, strictly: what is not
// understood is an error.
func ParseFile(data []byte) (*File, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("the authentication configuration has %d bytes: at most %d are read", len(data), maxFile)
	}
	var form fileForm
	if err := yaml.UnmarshalStrict(data, &form); err != nil {
		return nil, fmt.Errorf("the authentication configuration is not valid: %w", err)
	}
	switch form.APIVersion {
	case "apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1":
	default:
		return nil, fmt.Errorf("the authentication configuration has the version %q: use apiserver.config.k8s.io/v1", form.APIVersion)
	}
	if form.Kind != "AuthenticationConfiguration" {
		return nil, fmt.Errorf("the authentication configuration is of the kind %q: use AuthenticationConfiguration", form.Kind)
	}
	f := &File{}
	for i := range form.JWT {
		c, err := form.JWT[i].config()
		if err == nil {
			err = c.validate()
		}
		if err != nil {
			return nil, fmt.Errorf("jwt[%d]: %w", i, err)
		}
		for _, other := range f.Issuers {
			if other.IssuerURL == c.IssuerURL || c.DiscoveryURL != "" && other.DiscoveryURL == c.DiscoveryURL {
				return nil, fmt.Errorf("jwt[%d]: the issuer %s is there twice", i, c.IssuerURL)
			}
		}
		f.Issuers = append(f.Issuers, c)
	}
	var err error
	f.Anonymous, err = form.Anonymous.paths()
	return f, err
}

func (a *anonymous) paths() (func(string) bool, error) {
	if a == nil {
		return nil, nil
	}
	if !a.Enabled {
		if len(a.Conditions) > 0 {
			return nil, errors.New("anonymous.conditions need anonymous.enabled")
		}
		return func(string) bool { return false }, nil
	}
	if len(a.Conditions) == 0 {
		return func(string) bool { return true }, nil
	}
	paths := map[string]bool{}
	for i, c := range a.Conditions {
		if c.Path == "" {
			return nil, fmt.Errorf("anonymous.conditions[%d] needs a path", i)
		}
		paths[c.Path] = true
	}
	return func(path string) bool { return paths[path] }, nil
}

func (f *jwtForm) config() (Config, error) {
	i, m := &f.Issuer, &f.ClaimMappings
	c := Config{
		IssuerURL: i.URL, DiscoveryURL: i.DiscoveryURL, CA: []byte(i.CertificateAuthority), Audiences: i.Audiences,
		UID: Mapping{Claim: m.UID.Claim, Expression: m.UID.Expression}, Required: map[string]string{},
	}
	for _, x := range m.Extra {
		c.Extra = append(c.Extra, Extra{Key: x.Key, Expression: x.ValueExpression})
	}
	for _, a := range signingAlgorithms {
		c.Algorithms = append(c.Algorithms, string(a))
	}
	switch {
	case i.AudienceMatchPolicy != "" && i.AudienceMatchPolicy != "MatchAny":
		return c, fmt.Errorf("issuer.audienceMatchPolicy %q is not known: use MatchAny", i.AudienceMatchPolicy)
	case len(i.Audiences) > 1 && i.AudienceMatchPolicy == "":
		return c, errors.New("issuer.audienceMatchPolicy must be MatchAny for several audiences")
	case i.EgressSelectorType != "":
		return c, fmt.Errorf("issuer.egressSelectorType %q is not offered: leave it out", i.EgressSelectorType)
	}
	var err error
	if c.Username, err = m.Username.mapping("username"); err != nil {
		return c, err
	}
	if c.Groups, err = m.Groups.mapping("groups"); err != nil {
		return c, err
	}
	return c, f.rules(&c)
}

// rules adds what must hold of claims and user.
func (f *jwtForm) rules(c *Config) error {
	twice := map[string]bool{}
	for n, r := range f.ClaimValidationRules {
		_, required := c.Required[r.Claim]
		switch {
		case r.Claim == "" && r.Expression == "":
			return fmt.Errorf("claimValidationRules[%d] needs a claim or an expression", n)
		case r.Claim != "" && r.Expression != "":
			return fmt.Errorf("claimValidationRules[%d] has a claim and an expression: make two rules", n)
		case r.Claim != "" && r.Message != "":
			return fmt.Errorf("claimValidationRules[%d].message is for expressions", n)
		case r.Claim == "" && r.RequiredValue != "":
			return fmt.Errorf("claimValidationRules[%d].requiredValue is for claims", n)
		case required || twice[r.Expression]:
			return fmt.Errorf("claimValidationRules[%d]: %q is there twice", n, r.Claim+r.Expression)
		case r.Claim != "":
			c.Required[r.Claim] = r.RequiredValue
			continue
		}
		twice[r.Expression] = true
		c.ClaimRules = append(c.ClaimRules, Rule{Expression: r.Expression, Message: r.Message})
	}
	clear(twice)
	for n, r := range f.UserValidationRules {
		if r.Expression == "" || twice[r.Expression] {
			return fmt.Errorf("userValidationRules[%d] needs an expression of its own", n)
		}
		twice[r.Expression] = true
		c.UserRules = append(c.UserRules, Rule{Expression: r.Expression, Message: r.Message})
	}
	return nil
}

func (m *mappingForm) mapping(name string) (Mapping, error) {
	switch {
	case m.Expression != "" && (m.Claim != "" || m.Prefix != nil):
		return Mapping{}, fmt.Errorf("claimMappings.%s has an expression: leave out claim and prefix", name)
	case m.Expression != "":
		return Mapping{Expression: m.Expression}, nil
	case m.Claim == "" && m.Prefix == nil:
		return Mapping{}, nil
	case m.Claim == "":
		return Mapping{}, fmt.Errorf("claimMappings.%s.prefix needs a claim", name)
	case m.Prefix == nil:
		return Mapping{}, fmt.Errorf("claimMappings.%s.prefix must be set, to \"\" for none", name)
	default:
		return Mapping{Claim: m.Claim, Prefix: *m.Prefix}, nil
	}
}
