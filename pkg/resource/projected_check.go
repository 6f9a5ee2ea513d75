package resource

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/validation"
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
	claim := func(file string) field.ErrorList {
		if file != "" && taken[file] {
			return field.ErrorList{field.Invalid(path, file, "conflicting duplicate paths")}
		}
		taken[file] = true
		return nil
	}
	for i := range v.Sources {
		s, p := &v.Sources[i], path.Child("sources").Index(i)
		errs = append(errs, checkProjection(p, s, claim)...)
		if token := s.ServiceAccountToken; token != nil {
			// Upstream's path of the file lacks the sources; so does this.
			errs = append(errs, checkRequiredFile(path.Child("path"), token.Path)...)
		}
		// A source of no kind is what old clients send for a kind they do not
		// know; upstream takes it and so does this.
		if len(setFields(s)) > 1 {
			errs = append(errs, field.Forbidden(p, "may not specify more than 1 volume type per source"))
		}
	}
	return errs
}

// checkProjection checks one source. claim says what is wrong with a file that
// it writes.
func checkProjection(path *field.Path, s *corev1.VolumeProjection, claim func(string) field.ErrorList) field.ErrorList {
	var errs field.ErrorList
	items := func(p *field.Path, name string, list []corev1.KeyToPath) {
		errs = append(errs, required(p.Child("name"), name)...)
		errs = append(errs, checkItems(p, list)...)
		for _, item := range list {
			errs = append(errs, claim(item.Path)...)
		}
	}
	if s.Secret != nil {
		items(path.Child("secret"), s.Secret.Name, s.Secret.Items)
	}
	if s.ConfigMap != nil {
		items(path.Child("configMap"), s.ConfigMap.Name, s.ConfigMap.Items)
	}
	if s.DownwardAPI != nil {
		errs = append(errs, checkDownwardFiles(path.Child("downwardAPI"), s.DownwardAPI.Items)...)
		for _, item := range s.DownwardAPI.Items {
			errs = append(errs, claim(item.Path)...)
		}
	}
	if t := s.ServiceAccountToken; t != nil {
		errs = append(errs, checkTokenSeconds(path.Child("serviceAccountToken", "expirationSeconds"), t.ExpirationSeconds)...)
	}
	if b := s.ClusterTrustBundle; b != nil {
		p := path.Child("clusterTrustBundle")
		errs = append(errs, checkTrustBundle(p, b)...)
		errs = append(errs, checkRequiredFile(p.Child("path"), b.Path)...)
		errs = append(errs, claim(b.Path)...)
	}
	if c := s.PodCertificate; c != nil {
		errs = append(errs, checkPodCertificate(path.Child("podCertificate"), c)...)
		for _, file := range []string{c.CredentialBundlePath, c.KeyPath, c.CertificateChainPath} {
			errs = append(errs, claim(file)...)
		}
	}
	return errs
}

func checkRequiredFile(path *field.Path, name string) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return checkFileName(path, name)
}

func checkTrustBundle(path *field.Path, b *corev1.ClusterTrustBundleProjection) field.ErrorList {
	switch {
	case b.Name != nil && b.SignerName != nil:
		return field.ErrorList{field.Invalid(path, "", "only one of name and signerName may be used")}
	case b.Name != nil:
		return checkNamedBundle(path, b)
	case b.SignerName != nil:
		return append(checkSignerName(path.Child("signerName"), *b.SignerName), checkLabelSelector(path.Child("labelSelector"), b.LabelSelector)...)
	}
	return field.ErrorList{field.Required(path, "either name or signerName must be specified")}
}

// checkNamedBundle: a signer's bundle is called after it, SIGNER:NAME.
func checkNamedBundle(path *field.Path, b *corev1.ClusterTrustBundleProjection) field.ErrorList {
	var errs field.ErrorList
	if *b.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), "must be a valid object name"))
	}
	for _, msg := range utilvalidation.IsDNS1123Subdomain(last(*b.Name, ':')) {
		errs = append(errs, field.Invalid(path.Child("name"), *b.Name, "not a valid clustertrustbundlename: "+msg))
	}
	if b.LabelSelector != nil {
		errs = append(errs, field.Invalid(path.Child("labelSelector"), b.LabelSelector, "labelSelector must be unset if name is specified"))
	}
	return errs
}

func checkPodCertificate(path *field.Path, c *corev1.PodCertificateProjection) field.ErrorList {
	errs := checkSignerName(path.Child("signerName"), c.SignerName)
	keys := []string{"RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"}
	if !slices.Contains(keys, c.KeyType) {
		errs = append(errs, field.NotSupported(path.Child("keyType"), c.KeyType, keys))
	}
	if s := c.MaxExpirationSeconds; s != nil {
		most := int32(maxPodCertificateSeconds)
		if strings.HasPrefix(c.SignerName, "kubernetes.io/") {
			most = kubeSignerCertificateSeconds
		}
		if *s < minPodCertificateSeconds {
			errs = append(errs, field.Invalid(path.Child("maxExpirationSeconds"), *s, fmt.Sprintf("if provided, maxExpirationSeconds must be >= %d", minPodCertificateSeconds)))
		} else if *s > most {
			errs = append(errs, field.Invalid(path.Child("maxExpirationSeconds"), *s, fmt.Sprintf("if provided, maxExpirationSeconds must be <= %d", most)))
		}
	}
	if c.CredentialBundlePath == "" && c.KeyPath == "" && c.CertificateChainPath == "" {
		errs = append(errs, field.Required(path, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"))
	}
	for _, f := range []struct{ name, file string }{
		{"credentialBundlePath", c.CredentialBundlePath}, {"keyPath", c.KeyPath}, {"certificateChainPath", c.CertificateChainPath},
	} {
		if f.file != "" {
			errs = append(errs, checkFileName(path.Child(f.name), f.file)...)
		}
	}
	return append(errs, checkUserAnnotations(path.Child("userAnnotations"), c.UserAnnotations)...)
}

// checkUserAnnotations: what a pod tells its signer is annotations whose keys
// all have a domain.
func checkUserAnnotations(path *field.Path, annotations map[string]string) field.ErrorList {
	errs := validation.ValidateAnnotations(annotations, path)
	for _, key := range sortedKeys(annotations) {
		errs = append(errs, utilvalidation.IsDomainPrefixedKey(path.Key(key), key)...)
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
