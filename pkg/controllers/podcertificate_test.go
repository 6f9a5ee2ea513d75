package controllers_test

import (
	"os"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// TestOldPodCertificateRequestsGo: one stays for a quarter of an hour and no
// longer.
func TestOldPodCertificateRequestsGo(t *testing.T) {
	data, err := os.ReadFile("../resource/testdata/kinds/podcertificaterequests.certificates.k8s.io.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var request certificatesv1.PodCertificateRequest
	if err := yaml.Unmarshal(data, &request); err != nil {
		t.Fatal(err)
	}
	request.Namespace = "default"
	scenario(t, func(t *testing.T, c *cluster) {
		client := c.Client.CertificatesV1().PodCertificateRequests("default")
		if _, err := client.Create(t.Context(), &request, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15*time.Minute - 2*time.Second)
		if _, err := client.Get(t.Context(), request.Name, metav1.GetOptions{}); err != nil {
			t.Errorf("it went too early: %v", err)
		}
		c.wantNot("the request", func() error {
			_, err := client.Get(t.Context(), request.Name, metav1.GetOptions{})
			return err
		})
	})
}
