package cluster

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/localpath"
)

// storageStep gives a new cluster its default StorageClass. It is the user's
// from then on: a later start does not make it again.
func (b *boot) storageStep() step {
	return step{name: "Offer storage", do: func(ctx context.Context) error {
		client, err := adminClient(b.f)
		if err != nil {
			return err
		}
		_, err = client.StorageV1().StorageClasses().Create(ctx, localpath.Class(), metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make StorageClass %s: %w", localpath.ClassName, err)
		}
		return nil
	}}
}
