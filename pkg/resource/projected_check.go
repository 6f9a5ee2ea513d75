package resource

import (
	corev1 "k8s.io/api/core/v1"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	minTokenSeconds = 10 * 60
	maxTokenSeconds = 1 << 32
)

func checkTokenSeconds(path *field.Path, seconds *int64) field.ErrorList {
	var errs field.ErrorList
	if seconds == nil {
		return nil
	}
	if *seconds < minTokenSeconds {
		errs = append(errs, field.Invalid(path, *seconds, "may not specify a duration less than 10 minutes"))
	}
	if *seconds > maxTokenSeconds {
		errs = append(errs, field.Invalid(path, *seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	return errs
}

// checkProjected also sees to it that no two sources write the same file.
func checkProjected(path *field.Path, v *corev1.ProjectedVolumeSource) field.ErrorList {
	errs := checkMode(path.Child("defaultMode"), v.DefaultMode)
	taken := map[string]bool{}
	claim := func(p *field.Path, file string) {
		if file != "" && taken[file] {
			errs = append(errs, field.Invalid(p, file, "conflicting duplicate paths"))
		}
		taken[file] = true
	}
	for i := range v.Sources {
		s, p := &v.Sources[i], path.Child("sources").Index(i)
		kinds := setFields(s)
		if len(kinds) == 0 {
			// An empty source is what old clients send for a kind they do
			// not know; upstream takes it and so does this.
			continue
		}
		for _, kind := range kinds[1:] {
			errs = append(errs, field.Forbidden(p.Child(kind), "may not specify more than 1 volume type per source"))
		}
		errs = append(errs, checkProjection(p, kinds[0], s, claim)...)
	}
	return errs
}

func checkProjection(path *field.Path, kind string, s *corev1.VolumeProjection, claim func(*field.Path, string)) field.ErrorList {
	p := path.Child(kind)
	items := func(name string, list []corev1.KeyToPath) field.ErrorList {
		for _, item := range list {
			claim(path, item.Path)
		}
		return append(required(p.Child("name"), name), checkItems(p, list)...)
	}
	switch {
	case s.Secret != nil:
		return items(s.Secret.Name, s.Secret.Items)
	case s.ConfigMap != nil:
		return items(s.ConfigMap.Name, s.ConfigMap.Items)
	case s.DownwardAPI != nil:
		for _, item := range s.DownwardAPI.Items {
			claim(path, item.Path)
		}
		return checkDownwardFiles(p, s.DownwardAPI.Items)
	case s.ServiceAccountToken != nil:
		t := s.ServiceAccountToken
		claim(path, t.Path)
		errs := checkTokenSeconds(p.Child("expirationSeconds"), t.ExpirationSeconds)
		return append(errs, checkRequiredFile(p.Child("path"), t.Path)...)
	case s.ClusterTrustBundle != nil:
		b := s.ClusterTrustBundle
		claim(path, b.Path)
		return append(checkTrustBundle(p, b), checkRequiredFile(p.Child("path"), b.Path)...)
	case s.PodCertificate != nil:
		return checkPodCertificate(path, s.PodCertificate, claim)
	}
	return nil
}

func checkRequiredFile(path *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return checkFileName(path, name)
}

func checkTrustBundle(path *field.Path, b *corev1.ClusterTrustBundleProjection) field.ErrorList {
	switch {
	case b.Name != nil && b.SignerName != nil, b.Name == nil && b.SignerName == nil:
		return field.ErrorList{field.Invalid(path, "", "only one of name and signerName may be used")}
	case b.Name != nil && b.LabelSelector != nil:
		return field.ErrorList{field.Invalid(path.Child("labelSelector"), b.LabelSelector, "labelSelector must be unset if name is specified")}
	case b.Name != nil:
		return invalid(path.Child("name"), *b.Name, utilvalidation.IsDNS1123Subdomain(last(*b.Name, ':')))
	}
	return append(checkSignerName(path.Child("signerName"), *b.SignerName), checkLabelSelector(path.Child("labelSelector"), b.LabelSelector)...)
}

func checkPodCertificate(path *field.Path, c *corev1.PodCertificateProjection, claim func(*field.Path, string)) field.ErrorList {
	p := path.Child("podCertificate")
	errs := checkSignerName(p.Child("signerName"), c.SignerName)
	errs = append(errs, checkSet(p.Child("keyType"), c.KeyType, "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")...)
	if c.CredentialBundlePath == "" && c.KeyPath == "" && c.CertificateChainPath == "" {
		errs = append(errs, field.Required(p, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"))
	}
	for _, f := range []struct{ name, file string }{
		{"credentialBundlePath", c.CredentialBundlePath}, {"keyPath", c.KeyPath}, {"certificateChainPath", c.CertificateChainPath},
	} {
		if f.file != "" {
			claim(path, f.file)
			errs = append(errs, checkFileName(p.Child(f.name), f.file)...)
		}
	}
	return errs
}

// last is what follows the last sep in s, all of s where there is none.
func last(s string, sep byte) string {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == sep {
			return s[i+1:]
		}
	}
	return s
}
