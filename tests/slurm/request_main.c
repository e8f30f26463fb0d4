/* The plugin's grammar as a program: argv in, a line out. Built with sanitizers.
 *
 *   request_main site ARGUMENT...               the first argument that is wrong
 *   request_main valid DEVICES                  why these can't be a value of --cdi
 *   request_main split DEVICES                  each of them
 *
 * Exits with 0 and what was asked for, or with 1 and the complaint. */
#include "request.h"
#include "site.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void plan_complain(struct plan_complaint *complaint, const char *format, ...);

static int answer(bool good, const char *text, const struct plan_complaint *complaint)
{
    puts(good ? text : complaint->text);
    return good ? 0 : 1;
}

static int split(const char *requested)
{
    struct devices devices;
    if (!devices_split(requested, &devices))
        return 2;
    for (size_t i = 0; devices.name[i] != NULL; i++)
        puts(devices.name[i]);
    devices_free(&devices);
    return 0;
}

int main(int argc, char **argv)
{
    struct site site;
    struct plan_complaint complaint = {""};
    if (argc >= 2 && strcmp(argv[1], "site") == 0)
        return answer(site_read(&site, argc - 2, argv + 2, &complaint), "", &complaint);
    if (argc == 3 && strcmp(argv[1], "valid") == 0)
        return answer(request_devices_are_valid(argv[2], &complaint), "", &complaint);
    if (argc == 3 && strcmp(argv[1], "split") == 0)
        return split(argv[2]);
    return 2;
}
