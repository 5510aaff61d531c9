package kubetest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// The versions that Build builds, as kubestack/go.mod and kubestack/kwok/go.mod
// pin them.
const (
	KubernetesVersion = "1.34.4"
	EtcdVersion       = "3.6.4"
	KWOKVersion       = "0.8.0"
)

// CacheVariable names the environment variable that holds another folder for the
// built programs than the user's cache.
const CacheVariable = "COMMISSAIRE_KUBE_CACHE"

// RequireVariable is set to "require" where tests must not be skipped.
const RequireVariable = "COMMISSAIRE_KUBE"

const (
	etcd              = "etcd"
	apiServer         = "kube-apiserver"
	controllerManager = "kube-controller-manager"
	scheduler         = "kube-scheduler"
	kwok              = "kwok"
	// stagesFile says how KWOK moves nodes and pods on; part of its module.
	stagesFile = "kwok-stages.yaml"
)

// BinDir is the folder of the built programs, there or not: one for each set of
// versions, so that a newer checkout does not disturb an older one.
func BinDir() (string, error) {
	cache := os.Getenv(CacheVariable)
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(user, "commissaire", "kube")
	}
	return filepath.Join(cache, fmt.Sprintf("kubernetes-%s_etcd-%s_kwok-%s_%s-%s",
		KubernetesVersion, EtcdVersion, KWOKVersion, runtime.GOOS, runtime.GOARCH)), nil
}

// Available says why no control plane can be started here; nil when one can.
func Available() error {
	if runtime.GOOS != "linux" {
		return errors.New("the test control plane needs Linux")
	}
	dir, err := BinDir()
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("the test control plane is not built (%w); run make build-kube", err)
	}
	return nil
}
