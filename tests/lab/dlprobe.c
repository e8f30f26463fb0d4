/* dlprobe LIBRARY...: what a program that calls dlopen(3) with this name gets, one line each:
 * "O NAME PATH" with the path as the loader found it, or "O NAME missing". */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>

static const char *found_at(const char *name)
{
    struct link_map *map = NULL;
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);

    if (handle == NULL || dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0)
        return "missing";
    return map->l_name;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        printf("O %s %s\n", argv[i], found_at(argv[i]));
    return 0;
}
