// Command gitops says what GitOps tools make of objects: kstatus (kpt, Flux, `kubectl apply` of Config Sync) and Argo CD,
// each by its own code.
//
//	gitops verdicts FOLDER   of the objects on standard input, one JSON document a line
//	gitops tests FOLDER      of the objects that the health tests in FOLDER name, and what these expect
//	gitops diff              whether Argo CD sees a difference; a line is {"manifest": OBJECT, "live": OBJECT}
//	gitops application FILE  reads an Application of Argo CD, and prints it as JSON
//
// FOLDER has the form of Argo CD's resource_customizations: GROUP/KIND/health.lua, health_test.yaml and testdata beside
// it. For each object one line of JSON is printed. Whether it is the right one is for the caller to judge.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	argocd "github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/gitops-engine/pkg/diff"
	"github.com/argoproj/gitops-engine/pkg/health"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

// verdict is what a tool calls the state of an object, and why.
type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// line is what is printed for an object.
type line struct {
	// Of `gitops tests`: the object's file, and what Argo CD is to say of it.
	File     string               `json:"file,omitempty"`
	Expected *health.HealthStatus `json:"expected,omitempty"`
	Kstatus  verdict              `json:"kstatus"`
	ArgoCD   verdict              `json:"argocd"`
}

// healthTests is a health_test.yaml, as TestLuaHealthScript of Argo CD reads it.
type healthTests struct {
	Tests []struct {
		InputPath    string              `json:"inputPath"`
		HealthStatus health.HealthStatus `json:"healthStatus"`
	} `json:"tests"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gitops:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	output := json.NewEncoder(os.Stdout)
	output.SetEscapeHTML(false)
	if len(args) == 1 && args[0] == "diff" {
		return differences(os.Stdin, output)
	}
	if len(args) != 2 {
		return errors.New("usage: gitops verdicts|tests FOLDER, gitops diff, or gitops application FILE")
	}
	if args[0] == "application" {
		return application(args[1], output)
	}
	checks, err := healthChecks(args[1])
	if err != nil {
		return err
	}
	switch args[0] {
	case "verdicts":
		return verdicts(checks, os.Stdin, output)
	case "tests":
		return tests(checks, args[1], output)
	default:
		return fmt.Errorf("there is no command %q", args[0])
	}
}

// healthChecks are those of a folder, by the names that Argo CD gives them once it has read its ConfigMap.
func healthChecks(folder string) (lua.ResourceHealthOverrides, error) {
	scripts, err := filepath.Glob(filepath.Join(folder, "*", "*", "health.lua"))
	if err != nil {
		return nil, err
	}
	if len(scripts) == 0 {
		return nil, fmt.Errorf("there is no GROUP/KIND/health.lua in %s", folder)
	}
	checks := lua.ResourceHealthOverrides{}
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			return nil, err
		}
		kind, err := filepath.Rel(folder, filepath.Dir(script))
		if err != nil {
			return nil, err
		}
		checks[kind] = argocd.ResourceOverride{HealthLua: string(text)}
	}
	return checks, nil
}

func verdicts(checks lua.ResourceHealthOverrides, input io.Reader, output *json.Encoder) error {
	lines := scanner(input)
	for lines.Scan() {
		printed, err := judge(checks, lines.Bytes())
		if err != nil {
			return err
		}
		if err := output.Encode(printed); err != nil {
			return err
		}
	}
	return lines.Err()
}

func tests(checks lua.ResourceHealthOverrides, folder string, output *json.Encoder) error {
	for kind := range checks {
		folder := filepath.Join(folder, kind)
		text, err := os.ReadFile(filepath.Join(folder, "health_test.yaml"))
		if err != nil {
			return err
		}
		var tests healthTests
		if err := yaml.UnmarshalStrict(text, &tests); err != nil {
			return fmt.Errorf("%s: health_test.yaml: %w", kind, err)
		}
		for _, test := range tests.Tests {
			file := filepath.Join(folder, test.InputPath)
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			object, err := yaml.YAMLToJSON(text)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			printed, err := judge(checks, object)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			printed.File, printed.Expected = file, &test.HealthStatus
			if err := output.Encode(printed); err != nil {
				return err
			}
		}
	}
	return nil
}

// scanner reads lines of the length that objects have.
func scanner(input io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(input)
	lines.Buffer(nil, 16<<20)
	return lines
}

// differences are Argo CD's own, without its server-side ways: what it shows unless it is configured otherwise.
func differences(input io.Reader, output *json.Encoder) error {
	lines := scanner(input)
	for lines.Scan() {
		var pair struct {
			Manifest json.RawMessage `json:"manifest"`
			Live     json.RawMessage `json:"live"`
		}
		if err := json.Unmarshal(lines.Bytes(), &pair); err != nil {
			return err
		}
		var manifest, live unstructured.Unstructured
		if err := errors.Join(manifest.UnmarshalJSON(pair.Manifest), live.UnmarshalJSON(pair.Live)); err != nil {
			return err
		}
		result, err := diff.Diff(&manifest, &live)
		if err != nil {
			return err
		}
		printed := map[string]any{"modified": result.Modified}
		if result.Modified {
			printed["live"] = json.RawMessage(result.NormalizedLive)
			printed["predicted"] = json.RawMessage(result.PredictedLive)
		}
		if err := output.Encode(printed); err != nil {
			return err
		}
	}
	return lines.Err()
}

// application fails on a field that Argo CD does not know.
func application(file string, output *json.Encoder) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var application argocd.Application
	if err := yaml.UnmarshalStrict(text, &application); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return output.Encode(application)
}

// judge asks both, Argo CD the way its application controller does.
func judge(checks lua.ResourceHealthOverrides, text []byte) (*line, error) {
	var object unstructured.Unstructured
	if err := object.UnmarshalJSON(text); err != nil {
		return nil, err
	}
	computed, err := status.Compute(&object)
	if err != nil {
		return nil, fmt.Errorf("kstatus: %w", err)
	}
	assessed, err := health.GetResourceHealth(&object, checks)
	if err != nil {
		return nil, fmt.Errorf("Argo CD: %w", err)
	}
	if assessed == nil {
		return nil, fmt.Errorf("Argo CD has no health check for %s", object.GroupVersionKind())
	}
	return &line{
		Kstatus: verdict{Status: computed.Status.String(), Message: computed.Message},
		ArgoCD:  verdict{Status: string(assessed.Status), Message: assessed.Message},
	}, nil
}
