// Answers of the CDI reference library, for the tests that compare ours with them.
//
// One JSON question a line on standard input, one JSON answer a line on standard output:
//
//	{"dirs": [...], "devices": [...]}
//
// The first line of the output tells the library's newest CDI version, before any question.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	specs "tags.cncf.io/container-device-interface/specs-go"
)

type greeting struct {
	Version string `json:"version"`
}

type question struct {
	Dirs    []string `json:"dirs"`
	Devices []string `json:"devices"`
}

type answer struct {
	Devices    []string            `json:"devices"`
	Vendors    []string            `json:"vendors"`
	Classes    []string            `json:"classes"`
	Errors     map[string][]string `json:"errors"`     // by file
	Unresolved []string            `json:"unresolved"` // of the devices asked for
	Injection  string              `json:"injection"`  // why the edits could not be applied, or ""
	Panic      string              `json:"panic"`      // why the library gave up, or ""
	Spec       *oci.Spec           `json:"spec"`       // an empty OCI spec with the edits applied
}

// ask returns the library's answer. Some malformed specs make the library panic; that is an answer too.
func ask(q question) (a answer) {
	a = answer{Errors: map[string][]string{}, Spec: &oci.Spec{}}
	defer func() {
		if reason := recover(); reason != nil {
			a.Panic = fmt.Sprint(reason)
		}
	}()
	cache, err := cdi.NewCache(cdi.WithSpecDirs(q.Dirs...), cdi.WithAutoRefresh(false))
	if err != nil {
		panic(err)
	}
	a.Devices, a.Vendors, a.Classes = cache.ListDevices(), cache.ListVendors(), cache.ListClasses()
	for path, errs := range cache.GetErrors() {
		for _, err := range errs {
			a.Errors[path] = append(a.Errors[path], err.Error())
		}
	}
	if len(q.Devices) > 0 {
		if a.Unresolved, err = cache.InjectDevices(a.Spec, q.Devices...); err != nil {
			a.Injection = err.Error()
		}
	}
	return a
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<20), 1<<26)
	out := json.NewEncoder(os.Stdout)
	write := func(value any) {
		if err := out.Encode(value); err != nil {
			fmt.Fprintln(os.Stderr, "oracle:", err)
			os.Exit(1)
		}
	}
	write(greeting{specs.CurrentVersion})
	for lines.Scan() {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			fmt.Fprintf(os.Stderr, "oracle: not a question: %q: %v\n", lines.Text(), err)
			os.Exit(1)
		}
		write(ask(q))
	}
}
