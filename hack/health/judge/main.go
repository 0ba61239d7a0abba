// How tools that wait for health judge objects: as Helm 4 and Flux do (kstatus), or by a script of Argo CD's.
//
//	judge kstatus < objects.json              a JSON array of objects in, their judgements out
//	judge argocd SCRIPT.lua < objects.json    the same by a script, which finds each object as `obj`
package main

import (
	stdjson "encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
)

func main() {
	if err := judge(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func judge(arguments []string) error {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var list []any
	if err := json.Unmarshal(text, &list); err != nil { // whole numbers become int64, as everywhere in Kubernetes
		return err
	}
	judgements := []any{}
	for _, each := range list {
		object, isObject := each.(map[string]any)
		if !isObject {
			return fmt.Errorf("not an object: %v", each)
		}
		var judgement any
		var err error
		switch {
		case len(arguments) == 1 && arguments[0] == "kstatus":
			judgement, err = byKstatus(object)
		case len(arguments) == 2 && arguments[0] == "argocd":
			judgement, err = byScript(arguments[1], object)
		default:
			err = fmt.Errorf("usage: judge kstatus | judge argocd SCRIPT.lua")
		}
		if err != nil {
			return err
		}
		judgements = append(judgements, judgement)
	}
	return stdjson.NewEncoder(os.Stdout).Encode(judgements)
}

func byKstatus(object map[string]any) (any, error) {
	result, err := status.Compute(&unstructured.Unstructured{Object: object})
	if err != nil {
		return nil, err
	}
	return map[string]any{"status": result.Status.String(), "message": result.Message}, nil
}

// byScript runs a script with the libraries that Argo CD opens for one: base, table, package, and of os what is safe.
func byScript(file string, object map[string]any) (any, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	libraries := map[string]lua.LGFunction{
		lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable,
	}
	for _, name := range []string{lua.LoadLibName, lua.BaseLibName, lua.TabLibName} {
		state.Push(state.NewFunction(libraries[name]))
		state.Push(lua.LString(name))
		state.Call(1, 0)
	}
	state.PreloadModule("os", safeOs)
	state.SetGlobal("obj", toLua(state, object))
	if err := state.DoFile(file); err != nil {
		return nil, err
	}
	return fromLua(state.Get(-1)), nil
}

// safeOs has the time alone, in the one form that our scripts ask for.
func safeOs(state *lua.LState) int {
	state.Push(state.SetFuncs(state.NewTable(), map[string]lua.LGFunction{
		"time": func(state *lua.LState) int {
			state.Push(lua.LNumber(time.Now().Unix()))
			return 1
		},
		"date": func(state *lua.LState) int {
			if form := state.CheckString(1); form != "!%Y-%m-%dT%XZ" {
				state.RaiseError("os.date in the form %q is not known here", form)
			}
			state.Push(lua.LString(time.Now().UTC().Format("2006-01-02T15:04:05Z")))
			return 1
		},
	}))
	return 1
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case map[string]any:
		table := state.NewTable()
		for name, below := range value {
			table.RawSetString(name, toLua(state, below))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, below := range value {
			table.Append(toLua(state, below))
		}
		return table
	case string:
		return lua.LString(value)
	case int64:
		return lua.LNumber(value)
	case float64:
		return lua.LNumber(value)
	case bool:
		return lua.LBool(value)
	}
	return lua.LNil
}

func fromLua(value lua.LValue) any {
	switch value := value.(type) {
	case lua.LString:
		return string(value)
	case lua.LNumber:
		return float64(value)
	case lua.LBool:
		return bool(value)
	case *lua.LTable:
		if length := value.Len(); length > 0 {
			list := []any{}
			value.ForEach(func(_, below lua.LValue) { list = append(list, fromLua(below)) })
			return list
		}
		object := map[string]any{}
		value.ForEach(func(name, below lua.LValue) { object[name.String()] = fromLua(below) })
		return object
	}
	return nil
}
